"""Where users, catalogue and deployment lie in Redis.

<prefix>:user:{<user key>}:...       what is known of a user: see user_features.py
<prefix>:erased                      sorted set: users (keys), by the time (ms) until when nothing is known of them
<prefix>:published                   string: the release with which users were last published, and how much was kept
<prefix>:catalogue                   hash: item id -> item
<prefix>:catalogue_places            hash: item id -> log and offset of the record that last put or deleted the item
<prefix>:catalogue_reconciled        string: log, and the offset up to which every record of it has been taken over
<prefix>:active                      hash: release, namespace: what serves; previous_...: what served before
<prefix>:shadow                      hash: release, namespace, share: what answers unseen
<prefix>:namespaces                  set: namespaces being folded
<prefix>:retired                     sorted set: namespaces folded before, by the second since when they are not
<prefix>:deployment_version          string: how often what serves or is folded has changed
<prefix>:secret                      string: fingerprint of the secret that the user keys are made with
<prefix>:experiments                 hash: name -> experiment, as JSON
<prefix>:experiments_version         string: how often they have changed
<prefix>:changes                     stream: what changed in the catalogue or in what serves, capped
"""


class Keys:
    """The keys with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.catalogue = f"{prefix}:catalogue"
        self.places = f"{prefix}:catalogue_places"
        self.reconciled = f"{prefix}:catalogue_reconciled"
        self.active = f"{prefix}:active"
        self.shadow = f"{prefix}:shadow"
        self.namespaces = f"{prefix}:namespaces"
        self.retired = f"{prefix}:retired"
        self.changes = f"{prefix}:changes"
        self.deployment_version = f"{prefix}:deployment_version"
        self.experiments = f"{prefix}:experiments"
        self.experiments_version = f"{prefix}:experiments_version"
        self.secret = f"{prefix}:secret"
        self.of_items = [self.catalogue, self.places, self.changes]  # what the scripts on items take
        self.erased = f"{prefix}:erased"
        self.published = f"{prefix}:published"
