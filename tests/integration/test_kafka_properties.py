"""Properties of the connection reach producer, consumer and admin: brokers behind TLS that ask for a certificate,
or for a password."""

import contextlib
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from feature_store.contracts.errors import InvalidInput, LogMismatch, Unavailable
from feature_store.contracts.events import Tick, encode
from infra import servers
from infra.server_checks import kafka_checks
from infra.settings import Settings
from streaming.kafka import Log
from streaming.kafka_client import for_kafka_python
from streaming.settings import KafkaSettings
from tests.integration.conftest import running_broker_behind
from tests.mock_kafka import PROPERTIES, mock_kafka
from tests.proxies import proxy, sasl

PASSWORD = "open sesame, and close"


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
        with proxy(port, behind, context, sasl({"matchloop": PASSWORD})):
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
