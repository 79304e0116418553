"""The least that FastAPI can do with a recommendation: reads the body, and answers the same bytes every time.

    python -m infra.benchmarks.serving.bare PORT CORE ANSWER

ANSWER is a file with the JSON that it answers, which it encodes anew for each request.
"""

import os
import sys
from pathlib import Path

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from infra.servers import LOOPBACK


def main(port: int, core: int, answer: Path) -> None:
    """Serves until SIGTERM."""
    os.sched_setaffinity(0, {core})
    app, content = FastAPI(), orjson.loads(answer.read_bytes())

    @app.post("/v1/recommendations")
    async def recommend(request: Request) -> Response:
        orjson.loads(await request.body())
        return Response(orjson.dumps(content), media_type="application/json")

    uvicorn.run(app, host=LOOPBACK, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
