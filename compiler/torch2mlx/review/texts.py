"""Reading the text files of a generated folder."""

from __future__ import annotations

from pathlib import Path

from torch2mlx.errors import InputError


def text_of(path: Path) -> str | None:
    """The text of a file, None where there is none.

    Raises:
        InputError: It cannot be read, or is no UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise InputError(f"{path} is no UTF-8 text") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
