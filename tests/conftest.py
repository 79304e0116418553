"""What all tests share."""

from hypothesis import settings

settings.register_profile("matchloop", deadline=None)  # the first call of a kernel compiles it
settings.load_profile("matchloop")
