"""The command line, for spark-submit: it asks for a Python file, whose folder it puts before all other packages."""

from infra.cli import main

if __name__ == "__main__":
    main()
