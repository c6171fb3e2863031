"""The `purigate` command."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import structlog
import typer
from prometheus_client import disable_created_metrics
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from models.bundle import BundleError, Manifest, read_manifest
from models.device import PlacementError
from service.exposure import ExposedError
from service.keys import KeysFile, KeysFileError
from service.loading import check_bundle
from service.logs import configure_logs
from service.network_calls import NetworksEndedError
from service.network_owner import own_device
from service.network_socket import SocketError
from service.schemas import Output
from service.secret_file import SecretError
from service.server import run
from service.settings import HostSettings, NetworkSettings, Settings

AnySettings = TypeVar("AnySettings", bound=NetworkSettings)

app = typer.Typer(no_args_is_help=True, add_completion=False, help="A gateway that defends an image classifier.")
bundles = typer.Typer(no_args_is_help=True, help="Look at bundles.")
keys = typer.Typer(no_args_is_help=True, help="Manage API keys.")
app.add_typer(bundles, name="bundle")
app.add_typer(keys, name="keys")

FlagsOfSettings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
BundleFolder = Annotated[Path, typer.Argument(help="Folder of the bundle.")]
DEFAULT_KEYS_FILE = Path("keys.json")
KeysFileOption = Annotated[Path, typer.Option(help="File that keeps the hashes.")]


class SettingsError(Exception):
    """A flag or an environment variable has a value that is not allowed."""


@app.command(context_settings=FlagsOfSettings, help="Serve a bundle; 'purigate serve --help' lists every setting.")
def serve(context: typer.Context) -> None:
    """Serves until SIGINT or SIGTERM. The flags are the settings, so that there is one list of both."""
    settings = _settings(Settings, context.args)
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        status = run(settings)
    except (BundleError, KeysFileError, ExposedError, PlacementError, NetworksEndedError, SecretError) as error:
        _fail(error)
    raise typer.Exit(status)


@app.command(
    context_settings=FlagsOfSettings, help="Hold networks for several gateways ('purigate serve --networks shared')."
)
def networks(context: typer.Context) -> None:
    """Holds them until SIGINT or SIGTERM."""
    settings = _settings(HostSettings, context.args)
    try:
        status = own_device(settings)
    except (BundleError, PlacementError, FloatingPointError, RuntimeError, SocketError) as error:
        _fail(error)
    raise typer.Exit(status)


@bundles.command()
def show(folder: BundleFolder) -> None:
    """Print what the manifest says; reads no weights."""
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        _fail(error)
    _print_manifest(manifest)


@bundles.command()
def verify(folder: BundleFolder) -> None:
    """Check every hash and shape, and send one image through the classifier and every purifier."""
    try:
        engine = check_bundle(folder)
    except (BundleError, FloatingPointError, RuntimeError) as error:
        _fail(error)
    typer.echo(f"{folder}: {engine.manifest.name} {engine.manifest.version} is whole; it can be served")


@keys.command()
def new(
    name: Annotated[str, typer.Option("--id", help="What logs call the key; letters, digits, '.', '_' and '-'.")],
    output: Annotated[Output, typer.Option(help="What of the scores its holder is told.")] = "scores",
    quota: Annotated[str | None, typer.Option(help="Images it may ask about, such as '600/minute; 50000/day'.")] = None,
    *,
    admin: Annotated[bool, typer.Option("--admin", help="Its holder may reload the service.")] = False,
    keys_file: KeysFileOption = DEFAULT_KEYS_FILE,
) -> None:
    """Print a new key, this once, and store its hash; a running service takes it within seconds."""
    try:
        known = KeysFile.read(keys_file) if keys_file.exists() else KeysFile()
        extended, secret = known.issue(name, output=output, quota=quota, admin=admin)
        extended.write(keys_file)
    except (KeysFileError, OSError) as error:
        _fail(error)
    typer.echo(secret)


@keys.command("list")
def list_keys(keys_file: KeysFileOption = DEFAULT_KEYS_FILE) -> None:
    """List the keys by name with their policies; the keys themselves are stored nowhere."""
    try:
        known = KeysFile.read(keys_file)
    except KeysFileError as error:
        _fail(error)
    table = Table("id", "output", "quota", "admin")
    for key in known.keys:
        table.add_row(key.id, key.output, key.quota or "none", "yes" if key.admin else "no")
    Console().print(table)


@keys.command()
def revoke(
    name: Annotated[str, typer.Option("--id", help="Which key.")],
    keys_file: KeysFileOption = DEFAULT_KEYS_FILE,
) -> None:
    """Take a key away; a running service refuses it within seconds."""
    try:
        KeysFile.read(keys_file).revoke(name).write(keys_file)
    except (KeysFileError, OSError) as error:
        _fail(error)


def _print_manifest(manifest: Manifest) -> None:
    console = Console()
    size = manifest.preprocessing
    console.print(f"[bold]{manifest.name}[/] {manifest.version}, format {manifest.format}")
    console.print(f"classifier: {manifest.classifier.architecture!r}, {manifest.classifier.classes} classes")
    console.print(f"input: {size.width} x {size.height} pixels, shorter side resized to {size.resize}")
    console.print(
        f"pool: {len(manifest.pool.purifiers)} purifiers, grid {manifest.pool.grid}, halo {manifest.pool.halo}"
    )
    table = Table("purifier", "attack", "encoder", "features", "bytes")
    for purifier in manifest.pool.purifiers:
        encoder = purifier.architecture.encoder
        size_in_bytes = str(purifier.weights.size)
        table.add_row(purifier.name, purifier.attack, encoder.kind, str(encoder.features), size_in_bytes)
    console.print(table)
    console.print_json(data=manifest.provenance)


def _settings(kind: type[AnySettings], arguments: list[str]) -> AnySettings:
    """Those that the command line and the environment say; the log begins with them."""
    try:
        settings = kind(_cli_parse_args=arguments)
    except ValidationError as error:
        _fail(SettingsError("; ".join(": ".join([*map(str, one["loc"]), one["msg"]]) for one in error.errors())))
    configure_logs()
    structlog.get_logger().info("settings", **settings.model_dump(mode="json"))
    return settings


def _fail(error: Exception) -> NoReturn:
    typer.secho(f"error: {error}", err=True, fg=typer.colors.RED)
    sys.exit(1)
