"""When a cron expression is due, in UTC. APScheduler reads it; its weekdays begin with Monday, cron's with Sunday."""

from datetime import UTC, datetime, timedelta

from feature_store.contracts.errors import InvalidInput

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SUNDAY = 7  # another name of it


class Calendar:
    """One cron expression: minute, hour, day of the month, month, weekday."""

    def __init__(self, cron: str) -> None:
        """Raises InvalidInput if it is none, or names days of the month and of the week: cron is due on either, others
        on both."""
        from apscheduler.triggers.cron import CronTrigger

        fields = cron.split()
        try:
            if len(fields) != 5:
                raise ValueError(f"it has {len(fields)} fields, not 5")
            if "*" not in (fields[2], fields[4]):
                raise ValueError("it names days of the month and of the week; name one of the two")
            minute, hour, day, month, weekday = fields
            self._trigger = CronTrigger(
                minute=minute, hour=hour, day=day, month=month, day_of_week=_weekdays(weekday), timezone=UTC
            )
        except ValueError as error:
            raise InvalidInput(
                f"{cron!r} is not a cron expression: {error}. Write minute, hour, day of the month, month and weekday "
                "(UTC), such as 0 */4 * * * for every four hours."
            ) from None

    def after(self, now_ms: int) -> int:
        """The first time later than now; both in ms since the epoch."""
        later = datetime.fromtimestamp(now_ms // 1000, UTC) + timedelta(seconds=1)
        found: datetime = self._trigger.get_next_fire_time(None, later)
        return int(found.timestamp() * 1000)


def _weekdays(field: str) -> str:
    """Weekdays by name, one by one: a range that begins with Sunday is none where Monday is the first day."""
    if field == "*":
        return field
    found: list[str] = []
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin, end = (0, _SUNDAY - 1) if span == "*" else (_number(first), _number(last or first))
        if step and "-" not in span and span != "*":
            end = _SUNDAY - 1
        if begin > end or (step and not step.isdecimal()) or step == "0":
            raise ValueError(f"{part!r} is no weekday")
        found += [_DAYS[day] for day in range(begin, end + 1, int(step or 1))]
    return ",".join(dict.fromkeys(found))


def _number(day: str) -> int:
    if day.isdecimal() and int(day) <= _SUNDAY:
        return int(day)
    if day in _DAYS:
        return _DAYS.index(day)
    raise ValueError(f"{day!r} is no weekday")
