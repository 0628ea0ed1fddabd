"""The server of the page: no analytics, no share link, no requests to other machines."""

import os
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import UserError
from pipeline.evaluation.evaluate import load_model
from pipeline.runtime.signals import StopSignals

LOCAL = "127.0.0.1,localhost"


def serve(runs: Sequence[Path], host: str = "127.0.0.1", port: int = 7860) -> None:
    """Serve the page for some run directories until Ctrl-C or SIGTERM.

    Files that visitors drop are stored in a folder of their own, and deleted at the end. Raises
    UserError if the first run is not finished, or the port cannot be used.
    """
    _check_port(host, port)
    load_model(runs[0])  # a mistake is reported before Gradio's import, which takes seconds
    with tempfile.TemporaryDirectory(prefix="inkrun-app-") as folder, StopSignals() as signals:
        _configure(Path(folder))
        from pipeline.app import page  # reads the environment when it is imported

        blocks = page.build(runs)
        blocks.queue(api_open=False, max_size=100)
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            max_file_size=page.MAX_BYTES,
            theme=page.theme(),
            css=page.style(),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
        )
        print(f"{url} shows the page; Ctrl-C stops it.", flush=True)
        while not signals.received:  # the server's threads end with the process
            time.sleep(0.1)


def _check_port(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise UserError(f"port: got {port}, expected 1 to 65535")
    with socket.socket() as test:
        test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            test.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port: got {port} on {host}: {error.strerror}; --port takes another one"
            ) from error


def _configure(folder: Path) -> None:
    """Set what Gradio reads from the environment. It reaches itself through no proxy."""
    proxied = os.environ.get("NO_PROXY") or os.environ.get("no_proxy")
    direct = f"{proxied},{LOCAL}" if proxied else LOCAL
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_DEBUG": "0",  # it would wait for Ctrl-C itself
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
    }
