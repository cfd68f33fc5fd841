"""What is known to leave, whatever is written of it: vendors' addresses, and the models of Ollama's cloud."""

from urllib.parse import urlsplit

from tidegate.config.address import Url, api_path, is_private
from tidegate.config.endpoint import EndpointTable, EngineKind
from tidegate.config.listed import provider_of
from tidegate.config.problem import Problems
from tidegate.config.schema import SiteTable
from tidegate.config.vendors import VENDORS

_VENDORS = {urlsplit(vendor.url).netloc: vendor.provider for vendor in VENDORS} | {"ollama.com": "ollama"}
_REMEDY = "name a site with local = false, and write a price"


def vendor_of(url: Url) -> str:
    """The vendor whose address it is; empty where nobody knows that of it."""
    host = url.host.lower().rstrip(".")
    if is_private(host):
        return ""
    own = (provider for known, provider in _VENDORS.items() if host == known or host.endswith(f".{known}"))
    return next(own, "") or provider_of(f"https://{host}{api_path(url.path)}")


def in_ollamas_cloud(model: str) -> bool:
    """Whether Ollama passes on what is asked of this model: its tag says so."""
    _, colon, tag = model.rpartition(":")
    tag = tag.lower()
    return bool(colon) and (tag == "cloud" or tag.endswith("-cloud"))


def check(
    path: str,
    endpoint: EndpointTable,
    names: tuple[str, ...],
    site: SiteTable | None,
    url: Url | None,
    problems: Problems,
) -> None:
    """Note an endpoint at a local site that is none: what may not leave would be sent there, and be free.

    `names` are those by which its models are asked for.
    """
    if site is None or not site.local:
        return
    if url is not None and (vendor := vendor_of(url)):
        problems.add(f"{path}.site", f"the site is local, and this is an address of `{vendor}`", _REMEDY)
    elif endpoint.engine is EngineKind.OLLAMA and (cloud := [name for name in names if in_ollamas_cloud(name)]):
        problems.add(f"{path}.site", f"the site is local, and `{cloud[0][:64]}` runs in Ollama's cloud", _REMEDY)
