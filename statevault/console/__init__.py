"""The web API of a running system, its client, and the console. Needs the extra ``web``."""

from statevault.errors import MissingExtraError

try:
    import httpx as _httpx  # noqa: F401
    import prometheus_client as _prometheus_client  # noqa: F401
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in {"httpx", "prometheus_client", "starlette", "uvicorn"}:
        raise
    raise MissingExtraError(f"the web API needs {error.name}: pip install 'statevault[web]'") from error

from statevault.console.app import web_api
from statevault.console.client import WebApiClient
from statevault.console.errors import AddressInUseError, WebApiError, WebApiUnreachableError
from statevault.console.metrics import exposition
from statevault.console.server import WebApiServer
from statevault.console.shell import Console
from statevault.console.source import ControlledSystem, StatesListing, SystemSource
from statevault.console.views import ErrorView, SaveView, StatesView, SystemView, TicksView

__all__ = [
    "AddressInUseError",
    "Console",
    "ControlledSystem",
    "ErrorView",
    "SaveView",
    "StatesListing",
    "StatesView",
    "SystemSource",
    "SystemView",
    "TicksView",
    "WebApiClient",
    "WebApiError",
    "WebApiServer",
    "WebApiUnreachableError",
    "exposition",
    "web_api",
]
