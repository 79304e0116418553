"""Parquet data sets of the lake: where they lie and what their columns are.

lake/interactions/month=YYYY-MM/*.parquet                    imported history by the month of its times (UTC), one file
                                                             per import: it reads and writes the months it tells of
lake/histories/*.parquet                                     what else is known of users, in the same columns: they are
                                                             served by it, and nothing is learnt from it
lake/users/*.parquet   lake/items/*.parquet                  imported descriptions
lake/events/log=ID/partition=N/START-END.parquet             the log, as the sink wrote it
lake/catalogue/log=ID/partition=N/START-END.parquet          catalogue changes, as the sink wrote them
lake/foreign/NAME/log.parquet                                decisions of another system, imported for evaluation alone
lake/erasures/erasures.parquet                               who has been removed from all of these
shadow/RELEASE/*.parquet                                     what a release answered unseen, beside what was shown: no
                                                             part of the lake, and never a trial
"""

import pyarrow as pa

INTERACTIONS = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),  # user key
        pa.field("item", pa.string(), nullable=False),
        pa.field("type", pa.string(), nullable=False),  # what happened: rating, click, purchase, ...
        pa.field("value", pa.float64(), nullable=False),  # rating, watch time, ...; 1 where the data has none
        pa.field("time", pa.int64(), nullable=False),  # ms since the epoch: when it happened
        pa.field("written", pa.int64()),  # ... and when it was recorded; null: at once. Known at the later of both
    ]
)
USERS = pa.schema(
    [
        pa.field("user", pa.string(), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),  # JSON object
        pa.field("written", pa.int64()),  # ms since the epoch: when it was recorded, if the file said so ...
        pa.field("imported", pa.int64()),  # ... and when it was imported: else known from then on
    ]
)
ITEMS = pa.schema(
    [
        pa.field("item", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("categories", pa.list_(pa.string()), nullable=False),
        pa.field("attributes", pa.string(), nullable=False),  # JSON object
        pa.field("available_from", pa.int64()),  # ms since the epoch: not to be shown before; null: always
        pa.field("available_until", pa.int64()),  # ... and from then on; null: for ever
    ]
)
ERASURES = pa.schema(
    [
        pa.field("mark", pa.string(), nullable=False),  # SHA-256 of the user key
        pa.field("time", pa.int64(), nullable=False),  # ms since the epoch: until when nothing is known of the user
    ]
)

FOREIGN_LOG = pa.schema(
    [
        pa.field("user", pa.string()),  # user key; null: every row is somebody else's
        pa.field("time", pa.int64()),  # ms since the epoch
        pa.field("action", pa.string(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),  # in (0, 1]: of the action at its position
        pa.field("position", pa.int32(), nullable=False),  # from 1
        pa.field("choices", pa.int32()),  # how many actions there were
        pa.field("target", pa.float64()),  # chance that another policy would have done the same
        pa.field("context", pa.list_(pa.float64()), nullable=False),
        pa.field("category", pa.string()),  # of the action; absent in older files
    ]
)

_LIST_OF_FLOAT = pa.list_(pa.float64())
_LIST_OF_STRING = pa.list_(pa.string())
_LIST_OF_INT = pa.list_(pa.int64())

# One row per event, the columns of both kinds side by side: the log can be read back from it exactly.
EVENTS = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),  # of the record in its partition
        pa.field("position", pa.int32(), nullable=False),  # of the event in its record
        pa.field("kind", pa.string(), nullable=False),  # decision, feedback, withdrawal, profile, erasure, merge, ...
        pa.field("time", pa.int64(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("user", pa.string()),
        pa.field("trace", pa.string()),  # of a decision, and of feedback; absent in older files
        # decision
        pa.field("surface", pa.string()),
        pa.field("release", pa.string()),
        pa.field("namespace", pa.string()),
        pa.field("variant", pa.string()),
        pa.field("learns", pa.bool_()),
        pa.field("offsets", _LIST_OF_INT),
        pa.field("clusters", _LIST_OF_INT),
        pa.field("weights", _LIST_OF_FLOAT),
        pa.field("history", _LIST_OF_STRING),
        pa.field("history_kinds", _LIST_OF_STRING),
        pa.field("history_times", _LIST_OF_INT),
        pa.field("profile", _LIST_OF_STRING),
        pa.field("items", _LIST_OF_STRING),
        pa.field("shown", pa.int32()),
        pa.field("sources", _LIST_OF_STRING),
        pa.field("predicted", _LIST_OF_FLOAT),
        pa.field("mean", _LIST_OF_FLOAT),
        pa.field("bonus", _LIST_OF_FLOAT),
        pa.field("edges", _LIST_OF_INT),
        pa.field("probabilities", _LIST_OF_FLOAT),
        pa.field("greedy", _LIST_OF_FLOAT),
        pa.field("greedy_mean", _LIST_OF_FLOAT),
        pa.field("pinned", _LIST_OF_STRING),
        pa.field("pinned_places", _LIST_OF_INT),
        pa.field("candidates", _LIST_OF_STRING),
        pa.field("latency_ms", pa.float64()),
        pa.field("path", pa.string()),
        # feedback, and withdrawal (decision, user, time); an erasure has user and time
        pa.field("decision", pa.string()),
        pa.field("item", pa.string()),
        pa.field("type", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("received", pa.int64()),
        pa.field("session", pa.string()),
        # merge, which has user and time, too
        pa.field("account", pa.string()),  # the user key that the user turned out to be; absent in older files
        # switch
        pa.field("learning", pa.bool_()),
        # profile
        pa.field("attributes", pa.string()),  # JSON object
    ]
)
CATALOGUE = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("deleted", pa.bool_(), nullable=False),
        pa.field("title", pa.string()),
        pa.field("categories", _LIST_OF_STRING),
        pa.field("attributes", pa.string()),
        pa.field("available", pa.bool_()),
        pa.field("available_from", pa.int64()),
        pa.field("available_until", pa.int64()),
    ]
)
# One row per request that a release answered unseen. A prediction is null where the item was no candidate.
SHADOW = pa.schema(
    [
        pa.field("decision", pa.string(), nullable=False),  # whose request it was
        pa.field("user", pa.string(), nullable=False),
        pa.field("time", pa.int64(), nullable=False),
        pa.field("champion", pa.string(), nullable=False),  # the release that answered seen
        pa.field("shown", _LIST_OF_STRING),  # its slate
        pa.field("shown_predicted", _LIST_OF_FLOAT),  # by it
        pa.field("shown_predicted_unseen", _LIST_OF_FLOAT),  # of the same items by the release that answered unseen
        pa.field("items", _LIST_OF_STRING),  # the slate that was not shown
        pa.field("predicted", _LIST_OF_FLOAT),  # by the release that answered unseen
        pa.field("champion_predicted", _LIST_OF_FLOAT),  # of the same items by the one that was seen
    ]
)
