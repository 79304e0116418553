"""`matchloop up`, `down`, `status`: the stack of this home directory."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.console import Json, byte_size, options, progress, show, table

if TYPE_CHECKING:
    from infra.settings import Settings

_OUTCOMES = {"failed": "no success"}  # of a scheduled retrain, in words


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command()(up)
    app.command()(down)
    app.command()(status)


def up(
    context: typer.Context,
    only: Annotated[list[str] | None, typer.Option(help="A program to start; may be repeated. Default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Start the stack in the background: servers that you did not name in the settings, and MatchLoop's processes.

    Programs that run already are left alone, those that have ended are started again; the embedded broker's log, which
    it keeps in memory, then begins anew. The API needs a release: without one everything else is started.

    A schedule (schedule.cron, schedule.after) is kept as soon as there is a release.

    A release may take minutes to load. If a program does not start, this says why, and the others go on.

    Example: `matchloop up`, then `curl localhost:8080/readyz`
    """
    from feature_store.contracts.errors import InvalidInput
    from infra.programs import API, ORDER, SCHEDULE
    from infra.stack import Stack
    from infra.status import running
    from offline_training.progress import section

    settings = options(context).settings()
    if unknown := set(only or ()) - set(ORDER):
        raise InvalidInput(f"There is no program {min(unknown)!r}. There are: {', '.join(ORDER)}.")
    names = list(only or (name for name in ORDER if name not in (API, SCHEDULE)))
    with (
        progress("Starting") as report,
        Stack.background(settings, lambda: report(0.0, "waiting for another `matchloop up`")) as stack,
    ):
        stack.start(*names, progress=section(report, 0.0, 0.8))
        if only is None and _released(stack.settings):
            names += [API, SCHEDULE]
            stack.start(API, SCHEDULE, progress=section(report, 0.8, 1.0))
    hint = "\nThere is no release yet: run `matchloop train`, then `matchloop up` starts the API."
    if only or API in names:
        hint = ""
    described = running(stack)
    show(described, _words(described) + hint, as_json)


def down(context: typer.Context, as_json: Json = False) -> None:
    """Stop the stack, the API first. What it keeps in its home directory stays.

    Example: `matchloop down`
    """
    from infra.stack import Stack

    settings = options(context).settings()
    running = Stack(settings).running
    if running:
        Stack.attach(settings).stop()
    words = f"Stopped the stack in {settings.home}." if running else f"No stack was running in {settings.home}."
    show({"stopped": running, "home": settings.home}, words, as_json)


def status(context: typer.Context, as_json: Json = False) -> None:
    """Show what runs, where it answers and where its log is, what takes Redis' memory, and of a schedule the last
    retrain and the next.

    Example: `matchloop status --json`
    """
    from infra.status import status as status_of

    settings = options(context).settings()
    described = status_of(settings)
    words = _words(described) if described["running"] else "No stack is running. Start one with `matchloop up`."
    more = [*_memory_words(described["memory"]), *_schedule_words(described["schedule"])]
    show(described, "\n\n".join(filter(None, [words, *more])), as_json)


def _released(settings: "Settings") -> bool:
    """Whether a release was promoted. That there is one in the home is not enough: it may not have passed the gate."""
    from feature_store.online.store import OnlineStore
    from infra.connections import redis_client

    with redis_client(settings) as client:
        return OnlineStore(client, settings.redis).deployment.active() is not None


def _memory_words(memory: dict[str, Any] | None) -> list[str]:
    if memory is None:
        return []
    about = "about " if memory["estimated"] else ""
    rows = [["IN REDIS", "KEYS", "MEMORY"]]
    rows += [[kind["kind"], f"{kind['keys']:,}", byte_size(kind["bytes"])] for kind in memory["kinds"]]
    limit = f" of {byte_size(memory['limit'])}" if memory["limit"] else ""
    total = sum(kind["bytes"] for kind in memory["kinds"])
    return [f"{table(rows)}\n{about}{byte_size(total)}; the server uses {byte_size(memory['used'])}{limit}."]


def _schedule_words(schedule: dict[str, Any] | None) -> list[str]:
    if schedule is None:
        return []
    last = schedule["last"]
    words = []
    if schedule["running_since"] is not None:
        words.append(f"A retrain runs since {_when(schedule['running_since'])}, begun for {schedule['reason']}.")
    if last is not None:
        seconds = (last["ended"] - last["began"]) / 1000
        words.append(
            f"The last scheduled retrain began {_when(last['began'])} for {last['reason']} and took {seconds:.0f} s. "
            f"It was {_OUTCOMES.get(last['outcome'], last['outcome'])}: {last['words'].rstrip('.')}."
        )
    if schedule["next"] is not None and schedule["running_since"] is None:
        words.append(f"The next one is due {_when(schedule['next'])} ({schedule['cron']}).")
    if schedule["after"] is not None:
        words.append(f"One is due after {schedule['after']} events of feedback.")
    return ["\n".join(words)]


def _when(time_ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _words(described: dict[str, Any]) -> str:
    rows = [["PROGRAM", "STATE", "PID", "PORT", "LOG"]]
    problems = []
    for program in described["programs"]:
        state = program["state"].lower()
        if not program["healthy"]:
            state += ", not ready"
            problems.append(f"{program['name']}: {program['problem'].rstrip('.')}.")
        problems += [f"{program['name']} has in quarantine: {part}" for part in program["quarantined"]]
        rows.append([program["name"], state, str(program["pid"]), str(program["port"]), str(program["log"])])
    places = [[name, place] for name, place in described["endpoints"].items() if place]
    return "\n\n".join(filter(None, [table(rows), table(places) if places else "", "\n".join(problems)]))
