"""How every client of Kafka connects."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError
from kafka.net import KafkaNetClient

from feature_store.contracts.errors import InvalidInput, Unavailable
from streaming.kafka_tokens import ClientCredentials

CONNECT_TIMEOUT_MS = 5_000
_RECONNECT_MS = 1_000  # at most between two attempts; kafka-python's own limit is 30 s
_FILE = "file:"

# What reaches kafka-python's consumers and admin clients as well; librdkafka's producer takes all properties.
_NAMES = {
    "security.protocol": "security_protocol",
    "sasl.mechanism": "sasl_mechanism",
    "sasl.mechanisms": "sasl_mechanism",
    "sasl.username": "sasl_plain_username",
    "sasl.password": "sasl_plain_password",
    "ssl.ca.location": "ssl_cafile",
    "ssl.certificate.location": "ssl_certfile",
    "ssl.key.location": "ssl_keyfile",
    "ssl.key.password": "ssl_password",
    "client.id": "client_id",
    "client.rack": "client_rack",
}
_CHECK = "ssl.endpoint.identification.algorithm"
_ASSUMED = "broker.version.fallback"  # of brokers that do not say what they can


def resolved(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties with what is in files. Raises InvalidInput if one cannot be read."""
    return {name: _content(name, value) if value.startswith(_FILE) else value for name, value in properties.items()}


def for_kafka_python(properties: Mapping[str, str], known: Mapping[str, object]) -> dict[str, Any]:
    """Properties, resolved, as the arguments of one of kafka-python's clients, as far as it knows them. Raises
    KafkaError if they ask for a token and there is none."""
    found: dict[str, Any] = {_NAMES[name]: value for name, value in properties.items() if name in _NAMES}
    if _CHECK in properties:
        found["ssl_check_hostname"] = properties[_CHECK] != "none"
    if found.get("sasl_mechanism") == "OAUTHBEARER":
        found["sasl_oauth_token_provider"] = tokens = ClientCredentials(properties)
        tokens.token()  # now: without one kafka-python would only go on trying to connect
    if _ASSUMED in properties:
        found["api_version"] = tuple(int(part) for part in properties[_ASSUMED].split(".")[:3])
    return {name: value for name, value in found.items() if name in known}


def connected(make: Callable[..., Any], bootstrap: str, properties: Mapping[str, str], **settings: Any) -> Any:
    """A KafkaConsumer or KafkaAdminClient with these settings. properties: resolved. Raises Unavailable, with nothing
    left open, if the cluster does not answer."""
    opened: list[KafkaNetClient] = []

    def client(**configuration: Any) -> KafkaNetClient:
        opened.append(KafkaNetClient(**configuration))
        return opened[-1]

    try:
        return make(
            bootstrap_servers=bootstrap,
            bootstrap_timeout_ms=CONNECT_TIMEOUT_MS,
            reconnect_backoff_max_ms=_RECONNECT_MS,
            kafka_client=client,
            **for_kafka_python(properties, make.DEFAULT_CONFIG),  # type: ignore[attr-defined]
            **settings,
        )
    except KafkaError as error:
        found = str(error)
        while opened:
            opened.pop().close()
    # Outside and with nothing opened, so that it holds no sockets of refused connections: kafka-python does not close
    # them.
    raise Unavailable(
        f"Kafka does not answer at {bootstrap} ({found}). Start it, or set MATCHLOOP_KAFKA_BOOTSTRAP; kafka.properties "
        "say who this is."
    )


def _content(name: str, value: str) -> str:
    try:
        return Path(value.removeprefix(_FILE)).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"kafka.properties: the file of {name} cannot be read: {error}.") from None
