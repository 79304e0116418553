"""`matchloop deadletter`: events that could not be processed, and their way back into the log."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.console import Json, options, show, table

if TYPE_CHECKING:
    from infra.settings import Settings
    from streaming.dead_letter import Letter

_EXAMPLE_CHARACTERS = 120


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    group = typer.Typer(help="Events that could not be processed, and their way back into the log.")
    group.command(name="list")(list_letters)
    group.command()(retry)
    app.add_typer(group, name="deadletter")


def list_letters(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="Reasons to show, the most frequent first.")] = 20,
    as_json: Json = False,
) -> None:
    """List events that could not be processed and were not retried, by reason, with places and an example.

    Example: `matchloop deadletter list --json`
    """
    from streaming.dead_letter import by_reason

    letters = _pending(options(context).connected_settings())
    reasons = by_reason(letters)
    found = [
        {
            "reason": reason.reason,
            "count": len(reason.letters),
            "first": _place(reason.letters[0]),
            "last": _place(reason.letters[-1]),
            "example": _example(reason.letters[0]),
            "trace_id": getattr(reason.letters[0].event, "trace", None),
        }
        for reason in reasons[:limit]
    ]
    lines = [
        f"{one['count']} times: {one['reason']}\n"
        f"    first {_words(one['first'])}, last {_words(one['last'])}\n"
        f"    such as {one['example']}" + (f"\n    trace_id {one['trace_id']}" if one["trace_id"] else "")
        for one in found
    ]
    more = f"\nand {len(reasons) - limit} more reasons: --limit {len(reasons)}" if len(reasons) > limit else ""
    words = "\n".join(lines) + more if letters else "There are no dead letters."
    show({"letters": len(letters), "reasons": found}, words, as_json)


def retry(
    context: typer.Context,
    reason: Annotated[str | None, typer.Option(help="Retry those whose reason contains this text.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Retry all of them.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only report what would be appended.")] = False,
    as_json: Json = False,
) -> None:
    """Append dead letters to the log again, once their cause is fixed. Events that counted already do not count twice.

    Feedback whose window has closed in the meantime counts as late.

    Example: `matchloop deadletter retry --reason "is not declared" --dry-run`
    """
    from contextlib import closing

    from feature_store.contracts.clock import SystemClock
    from feature_store.contracts.errors import InvalidInput
    from infra.connections import event_log
    from streaming.dead_letter import append_again, plan_retry

    if everything is (reason is not None):
        raise InvalidInput("Specify which dead letters to retry: --reason TEXT, or --all.")
    settings = options(context).connected_settings()
    chosen = [letter for letter in _pending(settings) if reason is None or reason in letter.reason]
    plan = plan_retry(chosen, settings.rewards.window_seconds, SystemClock())
    if plan.appended and not dry_run:
        with closing(event_log(settings).writer()) as writer:
            append_again(
                writer, plan.appended, settings.kafka.topics.events, settings.kafka.topics.deadletter, SystemClock()
            )
    refused = [{"place": _place(letter), "why": why} for letter, why in plan.refused]
    done = "would be appended" if dry_run else "were appended to the log"
    lines = [f"{len(plan.appended)} of {len(chosen)} dead letters {done}."]
    if plan.late:
        lines.append(f"The windows of {plan.late} have closed: they count as late, and nothing is learnt from them.")
    if refused:
        rows = [[_words(one["place"]), str(one["why"])] for one in refused]
        lines += [f"{len(refused)} cannot be retried:", table(rows)]
    counts = {"chosen": len(chosen), "appended": len(plan.appended), "late": plan.late, "dry_run": dry_run}
    show(counts | {"refused": refused}, "\n".join(lines), as_json)


def _pending(settings: "Settings") -> list["Letter"]:
    from contextlib import closing

    from feature_store.online.store import OnlineStore
    from infra.connections import event_log, redis_client
    from streaming.dead_letter import pending

    log, topic = event_log(settings), settings.kafka.topics.deadletter
    with closing(log.reader(topic, dict.fromkeys(range(log.partitions(topic)), 0))) as reader:
        with redis_client(settings) as client:
            erased = OnlineStore(client, settings.redis).users.erased()
        return pending(reader.backlog(), erased)


def _place(letter: "Letter") -> dict[str, Any]:
    return {"source": letter.source, "log": letter.log, "partition": letter.partition, "offset": letter.offset}


def _words(place: Any) -> str:
    return f"{place['source']} partition {place['partition']} offset {place['offset']}"


def _example(letter: "Letter") -> str:
    import msgspec

    if letter.event is None:
        return repr((letter.record or b"")[:_EXAMPLE_CHARACTERS])
    text = msgspec.json.encode(letter.event).decode()
    return text if len(text) <= 4 * _EXAMPLE_CHARACTERS else text[: 4 * _EXAMPLE_CHARACTERS] + "..."
