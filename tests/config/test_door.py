"""What guards the addresses: keys, the admin secret, and a certificate that does."""

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.config.test_malformed import GOOD, problems_of
from tidegate.config.build import Built, build
from tidegate.config.load import load
from tidegate.config.secret import of_few

ADMIN = "zyx-0123456789-0123456789"


def built(folder: Path, gateway: str, variables: dict[str, str] | None = None) -> Built:
    file = folder / "tidegate.toml"
    file.write_text(f"[gateway]\n{gateway}\n{GOOD}")
    return build(load(file, variables or {}), 0.0)


@pytest.fixture
def certificate(tmp_path: Path) -> trustme.LeafCert:
    """A certificate `cert.pem`, its key `key.pem`, and one that belongs to another, `other.pem`."""
    authority = trustme.CA()
    made, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    for name, one in (("key.pem", made), ("other.pem", other)):
        one.private_key_pem.write_to_path(str(tmp_path / name))
        (tmp_path / name).chmod(0o600)
    return made


def test_without_any_of_it_loopback_is_open(tmp_path: Path) -> None:
    gateway = built(tmp_path, "").gateway
    assert (gateway.keys, gateway.admin_key, gateway.tls) == (None, None, None)


def test_with_keys_and_an_admin_secret_both_addresses_may_be_reached_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "keys.db").touch()
    text = "listen = '0.0.0.0:1'\nadmin = '0.0.0.0:2'\nkeys = 'keys.db'\nadmin_key = { env = 'ADMIN' }"
    gateway = built(tmp_path, text, {"ADMIN": ADMIN}).gateway
    assert gateway.keys == tmp_path / "keys.db"
    assert gateway.admin_key is not None
    assert gateway.admin_key.reveal() == ADMIN
    assert ADMIN not in repr(gateway)


def test_the_admin_secret_may_stand_in_a_file_that_not_everybody_reads(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text(ADMIN + "\n")
    file.chmod(0o600)
    key = built(tmp_path, "admin_key = { file = 'admin.key' }").gateway.admin_key
    assert key is not None
    assert key.reveal() == ADMIN
    file.chmod(0o644)
    (problem,) = problems_of(tmp_path, f"[gateway]\nadmin_key = {{ file = 'admin.key' }}\n{GOOD}")
    assert (problem.path, problem.remedy) == ("gateway.admin_key.file", of_few(file))


def test_a_certificate_and_its_key_make_a_context_of_tls_12_at_least(
    tmp_path: Path, certificate: trustme.LeafCert
) -> None:
    made = built(tmp_path, "tls = { cert = 'cert.pem', key = 'key.pem' }").gateway.tls
    assert made is not None
    assert made.context().minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("cert", "key", "path", "said"),
    [
        ("none.pem", "key.pem", "gateway.tls.cert", "no such file"),
        ("cert.pem", "none.pem", "gateway.tls.key", "no such file"),
        ("cert.pem", ".", "gateway.tls.key", "it is a folder"),
        ("cert.pem", "other.pem", "gateway.tls", "key values mismatch"),
        ("key.pem", "cert.pem", "gateway.tls", "not in PEM"),
        ("tidegate.toml", "key.pem", "gateway.tls", "not in PEM"),
        ("cert.pem", "locked.pem", "gateway.tls", "the key has a password"),
        ("cert.pem", "open.pem", "gateway.tls.key", "read by everybody"),
    ],
)
def test_files_that_do_not_do_are_named_with_a_remedy(
    tmp_path: Path, certificate: trustme.LeafCert, cert: str, key: str, path: str, said: str
) -> None:
    private = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    locked = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"abcdef"))
    for name, content in (("locked.pem", locked), ("open.pem", certificate.private_key_pem.bytes())):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "locked.pem").chmod(0o600)
    (tmp_path / "open.pem").chmod(0o644)
    (tmp_path / "cert.pem").chmod(0o600)
    found = problems_of(tmp_path, f"[gateway]\ntls = {{ cert = '{cert}', key = '{key}' }}\n{GOOD}")
    assert [(problem.path, said in problem.message) for problem in found] == [(path, True)]


@pytest.mark.parametrize(
    ("log", "setting"),
    [
        ("keys.db", "gateway.keys"),
        ("keys.link", "gateway.keys"),
        ("cert.pem", "gateway.tls.cert"),
        ("key.pem", "gateway.tls.key"),
        ("admin.key", "gateway.admin_key.file"),
        ("api.key", "endpoint.mine.api_key_file"),
    ],
)
def test_log_lines_go_into_no_file_that_is_another_setting(
    tmp_path: Path, certificate: trustme.LeafCert, log: str, setting: str
) -> None:
    (tmp_path / "keys.db").touch()
    (tmp_path / "keys.link").symlink_to("keys.db")
    for name in ("admin.key", "api.key"):
        (tmp_path / name).write_text(ADMIN)
        (tmp_path / name).chmod(0o600)
    ours = "[gateway]\nkeys = 'keys.db'\nadmin_key = { file = 'admin.key' }\n"
    ours += "tls = { cert = 'cert.pem', key = 'key.pem' }\n"
    (problem,) = problems_of(tmp_path, f"{ours}log = '{log}'\n{GOOD}api_key_file = 'api.key'\n")
    assert (problem.path, problem.message) == ("gateway.log", f"`{setting}` names it, too")


def test_certificate_and_key_may_stand_in_one_file(tmp_path: Path, certificate: trustme.LeafCert) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "cert.pem").read_bytes() + (tmp_path / "key.pem").read_bytes())
    both.chmod(0o600)
    made = built(tmp_path, "tls = { cert = 'both.pem', key = 'both.pem' }").gateway.tls
    assert made is not None
    assert made.cert == made.key == both


def addresses(listen: str, admin: str) -> str:
    """A gateway that listens there, guarded."""
    guards = "keys = 'keys.db'\nadmin_key = { file = 'admin.key' }"
    return f"[gateway]\nlisten = '{listen}'\nadmin = '{admin}'\n{guards}\n{GOOD}"


@pytest.fixture
def guards(tmp_path: Path) -> None:
    """What both addresses need where they can be reached."""
    (tmp_path / "keys.db").touch()
    (tmp_path / "admin.key").write_text(ADMIN)
    (tmp_path / "admin.key").chmod(0o600)


@pytest.mark.usefixtures("guards")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.0.0.0:1", "192.0.2.7:1"),
        (":1", "[fd00::5]:1"),
        (":1", "192.0.2.7:1"),
        (":1", "gate.lan:1"),
        ("[::]:1", "[fd00::5]:1"),
        ("[0::0]:1", "[::]:1"),
    ],
)
def test_two_addresses_of_which_one_holds_the_other_are_refused(
    tmp_path: Path, one: str, other: str, turned: bool
) -> None:
    listen, admin = (other, one) if turned else (one, other)
    (problem,) = problems_of(tmp_path, addresses(listen, admin))
    assert (problem.path, problem.remedy) == ("gateway.admin", "give it a port of its own, as in 127.0.0.1:8401")


@pytest.mark.usefixtures("guards")
@pytest.mark.parametrize(
    ("listen", "admin"),
    [("[::]:1", "192.0.2.7:1"), ("0.0.0.0:1", "[fd00::5]:1"), ("0.0.0.0:1", "192.0.2.7:2"), (":0", "0.0.0.0:0")],
)
def test_two_addresses_that_can_both_be_had_are_taken(tmp_path: Path, listen: str, admin: str) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(addresses(listen, admin))
    assert load(file, {}).gateway.admin == admin


def leading(folder: Path, listen: str, url: str) -> str:
    """A gateway that listens there, with an endpoint there."""
    (folder / "keys.db").touch()
    ours = f"[gateway]\nlisten = '{listen}'\nadmin = '127.0.0.1:9401'\nkeys = 'keys.db'\n"
    return ours + GOOD.replace("http://127.0.0.1:8080", url)


@pytest.mark.parametrize(
    ("listen", "url", "setting"),
    [
        ("127.0.0.1:8400", "http://127.0.0.1:8400", "gateway.listen"),
        ("127.0.0.1:8400", "http://localhost:8400/v1", "gateway.listen"),
        ("127.0.0.1:8400", "http://0.0.0.0:8400", "gateway.listen"),
        ("0.0.0.0:8400", "http://127.0.0.1:8400", "gateway.listen"),
        ("[::]:8400", "http://[::1]:8400", "gateway.listen"),
        (":80", "http://localhost", "gateway.listen"),
        ("gate.lan:443", "https://Gate.lan", "gateway.listen"),
        ("127.0.0.1:8400", "http://localhost:9401", "gateway.admin"),
    ],
)
def test_an_endpoint_that_is_the_gateway_itself_is_refused(tmp_path: Path, listen: str, url: str, setting: str) -> None:
    (problem,) = problems_of(tmp_path, leading(tmp_path, listen, url))
    assert (problem.path, problem.remedy) == ("endpoint.mine.url", "write where the engine listens")
    assert setting in problem.message


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8400", "http://127.0.0.1:8080"),
        ("127.0.0.1:8400", "http://192.168.0.7:8400"),
        ("0.0.0.0:8400", "http://rack.lan:8400"),
        ("127.0.0.1:8400", "http://[::1]:8400"),
        ("127.0.0.1:8400", "http://127.0.0.2:8400"),
        ("127.0.0.1:0", "http://127.0.0.1:8400"),
    ],
)
def test_an_endpoint_that_listens_elsewhere_may_have_the_same_port(tmp_path: Path, listen: str, url: str) -> None:
    file = tmp_path / "tidegate.toml"
    file.write_text(leading(tmp_path, listen, url))
    assert load(file, {}).endpoints["mine"].url == url
