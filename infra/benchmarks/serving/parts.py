"""The parts of an API process, by the code that works for them."""

from types import FrameType

OTHER = "event loop and others"
# The end of a file's path, and the function if not all of the file: the innermost frame that is named here decides.
_BY_FUNCTION = {
    ("online_serving/towers.py", "user_vectors"): "user tower",
    ("online_serving/towers.py", "predict"): "ranker",
    ("online_serving/towers.py", "score_pairs"): "scorer of item lists",
    ("feature_store/definitions.py", "ranker_features"): "ranker's features",
    ("feature_store/definitions.py", "at_age"): "ranker's features",
    ("online_serving/pipeline/features.py", "candidate_features"): "ranker's features",
    ("online_serving/pipeline/features.py", "encode_user"): "user tower's input",
    ("streaming/bandit/diag_linucb.py", "context"): "user's clusters",
    ("streaming/bandit/diag_linucb.py", "score"): "bandit",
    ("online_serving/pipeline/pipeline.py", "_columns"): "columns for log and answer",
    ("online_serving/pipeline/pipeline.py", "unexplored"): "columns for log and answer",
}
_BY_FILE = {
    "online_serving/item_lists.py": "item lists",
    "online_serving/item_index.py": "index",
    "online_serving/pipeline/candidates.py": "clusters, fresh items, union",
    "online_serving/pipeline/rules.py": "rules",
    "online_serving/pipeline/explore.py": "bandit",
    "streaming/bandit/exploration.py": "bandit",
    "online_serving/decisions.py": "log",
    "online_serving/event_log.py": "log",
    "feature_store/contracts/events.py": "log",
    "streaming/writer.py": "log",
    "feature_store/turns.py": "Redis",
    "feature_store/shared_connection.py": "Redis",
    "feature_store/user_features.py": "Redis",
    "online_serving/metrics.py": "metrics",
    "online_serving/recommendations.py": "request, ids, answer",
    "feature_store/contracts/identity.py": "request, ids, answer",
    "online_serving/bodies.py": "HTTP",
    "online_serving/api.py": "HTTP",
    "online_serving/auth.py": "HTTP",
    "online_serving/direct.py": "HTTP",
    "online_serving/tracing.py": "HTTP",
    "online_serving/overload.py": "HTTP",
    "online_serving/protocol.py": "HTTP",
    "online_serving/followers.py": "following parameters and catalogue",
    "online_serving/parameters.py": "following parameters and catalogue",
}
_BY_PACKAGE = {
    "kafka": "log",
    "confluent_kafka": "log",
    "redis": "Redis",
    "feature_store/online": "Redis",
    "prometheus_client": "metrics",
    "fastapi": "HTTP",
    "starlette": "HTTP",
    "uvicorn": "HTTP",
    "pydantic": "HTTP",
}


def part_of(frame: FrameType | None) -> str:
    """What a thread is at work on, by its innermost frame."""
    while frame is not None:
        path, function = frame.f_code.co_filename, frame.f_code.co_name
        found = _part(path, function)
        if found is not None:
            return found
        frame = frame.f_back
    return OTHER


def _part(path: str, function: str) -> str | None:
    end = "/".join(path.split("/")[-3:])
    for file in (end, end.partition("/")[2]):
        found = _BY_FUNCTION.get((file, function)) or _BY_FILE.get(file)
        if found is not None:
            return found
    return next((part for package, part in _BY_PACKAGE.items() if f"/{package}/" in path), None)
