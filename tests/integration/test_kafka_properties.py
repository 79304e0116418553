"""Properties of the connection reach producer, consumer and admin: brokers behind TLS that ask for a certificate,
or for a password."""

import base64
import contextlib
import http.server
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from kafka.errors import KafkaError
from pydantic import ValidationError

from feature_store.contracts.errors import InvalidInput, LogMismatch, Unavailable
from feature_store.contracts.events import Tick, encode
from infra import servers
from infra.server_checks import kafka_checks
from infra.settings import Settings
from streaming.kafka import Log
from streaming.kafka_client import for_kafka_python
from streaming.kafka_tokens import ClientCredentials
from streaming.settings import KafkaSettings
from tests.integration.conftest import running_broker_behind
from tests.mock_kafka import PROPERTIES, mock_kafka
from tests.proxies import proxy, sasl

PASSWORD = "open sesame, and close"
SECRET = "of the client: 100%"


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


TOKEN = f"{_part({'alg': 'none'})}.{_part({'sub': 'matchloop', 'exp': 4_102_444_800})}.c2lnbmF0dXJl"  # until 2100


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Certificate of 127.0.0.1, its key under a password, and the file with the password."""
    folder = tmp_path_factory.mktemp("tls")
    made, key, password = folder / "cert.pem", folder / "key.pem", folder / "password"
    password.write_text("open sesame\n")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", made, "-days", "2"),
            *("-passout", f"file:{password}", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return made, key, password


@pytest.fixture(scope="module")
def broker(certificate: tuple[Path, Path, Path]) -> Iterator[str]:
    """Address of a proxy that speaks TLS, in front of a broker."""
    made, key, password = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made))
    context.load_cert_chain(made, key, password.read_text().strip())
    context.verify_mode = ssl.CERT_REQUIRED
    port = servers.free_port()
    with running_broker_behind(port) as behind, proxy(port, behind, context):
        yield f"127.0.0.1:{port}"


def _settings(certificate: tuple[Path, Path, Path], **changes: str) -> KafkaSettings:
    made, key, password = map(str, certificate)
    properties = {
        "security.protocol": "SSL",
        "ssl.ca.location": made,
        "ssl.certificate.location": made,
        "ssl.key.location": key,
        "ssl.key.password": f"file:{password}",
        "client.id": "matchloop-test",
        "compression.type": "zstd",
    }
    return KafkaSettings(partitions=1, properties=properties | changes)


def test_topics_are_made_written_and_read_over_tls(certificate: tuple[Path, Path, Path], broker: str) -> None:
    log = Log(_settings(certificate), broker)
    log.create_topics()
    assert log.problems() == []
    place = log.append_everywhere(encode([Tick(time=5)]))
    with contextlib.closing(log.reader("events", {0: 0})) as reader:
        (record,) = list(reader.backlog())
    assert (record.offset + 1, record.value) == (place[0], encode([Tick(time=5)]))


@pytest.fixture(scope="module", params=["plain", "tls"])
def asking(
    request: pytest.FixtureRequest, certificate: tuple[Path, Path, Path]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a broker that asks for a password, and the properties beside it, without and with TLS."""
    made, key, password = certificate
    context, properties = None, {"security.protocol": "SASL_PLAINTEXT"}
    if request.param == "tls":
        context, properties = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), {"security.protocol": "SASL_SSL"}
        context.load_cert_chain(made, key, password.read_text().strip())
        properties["ssl.ca.location"] = str(made)
    port = servers.free_port()
    with mock_kafka(brokers=1) as kafka:
        for topic in KafkaSettings().topics:
            kafka.create(topic, partitions=1, replicas=1)
        kafka.advertise(1, port)
        behind = int(kafka.bootstrap.rpartition(":")[2])
        with proxy(port, behind, context, sasl({"matchloop": PASSWORD}, {TOKEN})):
            yield f"127.0.0.1:{port}", PROPERTIES | properties


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_who_says_the_password_gets_in_and_nobody_else(
    asking: tuple[str, dict[str, str]], tmp_path: Path, mechanism: str
) -> None:
    broker, connection = asking
    (tmp_path / "right").write_text(f"{PASSWORD}\n")
    (tmp_path / "wrong").write_text("open barley")

    def log(file: str) -> Log:
        said = {"sasl.mechanism": mechanism, "sasl.username": "matchloop", "sasl.password": f"file:{tmp_path / file}"}
        return Log(KafkaSettings(bootstrap=broker, partitions=1, properties=connection | said), broker)

    (end,) = log("right").append_everywhere(encode([Tick(time=5)]))
    with contextlib.closing(log("right").reader("events", {0: end - 1})) as reader:
        assert [record.offset + 1 for record in reader.backlog()][-1] == end
    checks = {check.name: check.ok for check in kafka_checks(Settings(home=tmp_path, kafka=log("right").settings))}
    assert checks == {
        "kafka": True,
        "topics": False,
        "kafka rights": True,
        "kafka round trip": True,
    }  # it tells no more
    with pytest.raises(Unavailable, match=r"Kafka does not answer.*kafka\.properties"):
        log("wrong").log_id()
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        log("wrong").writer()


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """URL of an identity provider that gives the client its token, and nobody else one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            said = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
            known = said == f"shop:{SECRET}" and form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"access_token": TOKEN, "expires_in": 300} if known else {}).encode())

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer((servers.LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{servers.LOOPBACK}:{server.server_port}/token"
        server.shutdown()
        thread.join()


def test_who_has_a_token_gets_in_and_nobody_else(
    asking: tuple[str, dict[str, str]], provider: str, tmp_path: Path
) -> None:
    broker, connection = asking
    (tmp_path / "right").write_text(SECRET)
    (tmp_path / "wrong").write_text("of another one")

    def log(file: str) -> Log:
        said = {
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": provider,
            "sasl.oauthbearer.client.id": "shop",
            "sasl.oauthbearer.client.secret": f"file:{tmp_path / file}",
            "sasl.oauthbearer.scope": "kafka",
        }
        return Log(KafkaSettings(bootstrap=broker, partitions=1, properties=connection | said), broker)

    (end,) = log("right").append_everywhere(encode([Tick(time=5)]))
    with contextlib.closing(log("right").reader("events", {0: end - 1})) as reader:
        assert [record.offset + 1 for record in reader.backlog()][-1] == end
    assert log("right").partitions() == 1
    with pytest.raises(Unavailable, match=r"Kafka does not answer .* gives no token: HTTP Error 401"):
        log("wrong").partitions()
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        log("wrong").writer()


def test_a_token_is_asked_for_once_and_a_provider_that_is_away_is_named(provider: str) -> None:
    names = {"url": "token.endpoint.url", "id": "client.id", "secret": "client.secret", "scope": "scope"}
    said = {"url": provider, "id": "shop", "secret": SECRET, "scope": "kafka"}
    tokens = ClientCredentials({f"sasl.oauthbearer.{names[name]}": value for name, value in said.items()})
    assert tokens.token() == TOKEN
    tokens._url = "http://127.0.0.1:9/away"  # the next one is not asked for yet
    assert tokens.token() == TOKEN
    with pytest.raises(KafkaError, match=r"token\.endpoint\.url = '' gives no token"):
        ClientCredentials({}).token()


def test_properties_that_make_no_sense_are_refused() -> None:
    log = Log(KafkaSettings(properties={"compression.type": "squeezed"}), "127.0.0.1:1")
    with pytest.raises(InvalidInput, match=r"kafka\.properties are refused: .*squeezed"):
        log.writer()


def test_without_them_nobody_gets_in(broker: str) -> None:
    log = Log(KafkaSettings(partitions=1), broker)
    with pytest.raises(Unavailable, match=r"Kafka does not answer.*kafka\.properties"):
        log.create_topics()
    with pytest.raises(Unavailable):
        log.writer()


def test_a_file_that_is_missing_is_named(certificate: tuple[Path, Path, Path], broker: str) -> None:
    with pytest.raises(InvalidInput, match=r"the file of ssl\.key\.password cannot be read"):
        Log(_settings(certificate, **{"ssl.key.password": "file:/nowhere"}), broker)


def test_passwords_stand_in_files_and_exactly_once_is_not_to_be_switched_off() -> None:
    with pytest.raises(ValidationError, match=r"write sasl\.password into a file"):
        KafkaSettings(properties={"sasl.password": "secret"})
    with pytest.raises(ValidationError, match=r"write sasl\.oauthbearer\.client\.secret into a file"):
        KafkaSettings(properties={"sasl.oauthbearer.client.secret": "secret"})
    with pytest.raises(ValidationError, match=r'set "sasl\.oauthbearer\.method" = "oidc"'):
        KafkaSettings(properties={"sasl.mechanism": "OAUTHBEARER"})
    with pytest.raises(ValidationError, match=r"sets enable\.idempotence"):
        KafkaSettings(properties={"enable.idempotence": "false"})


def test_topics_that_are_missing_are_reported_where_they_may_not_be_made(
    certificate: tuple[Path, Path, Path], broker: str
) -> None:
    settings = _settings(certificate).model_copy(update={"create_topics": False, "events_topic": "not-there"})
    with pytest.raises(LogMismatch, match=r"has no topic 'not-there', and kafka\.create_topics is false") as missing:
        Log(settings, broker).create_topics()
    (command,) = str(missing.value).splitlines()[1:]
    assert command.startswith(f"kafka-topics.sh --bootstrap-server {broker} --create --topic not-there --partitions 1 ")


def test_kafka_python_gets_what_it_knows() -> None:
    properties = {
        "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": "u", "sasl.password": "p",
        "ssl.endpoint.identification.algorithm": "none", "linger.ms": "7", "client.rack": "a",
    }  # fmt: skip
    known = dict.fromkeys(
        ["security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password", "ssl_check_hostname"]
    )
    assert for_kafka_python(properties, known) == {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "u",
        "sasl_plain_password": "p", "ssl_check_hostname": False,
    }  # fmt: skip
