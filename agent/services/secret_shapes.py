"""What looks like a secret in a definition: by its name, or by its shape."""

from __future__ import annotations

import re

SECRET_NAME = re.compile(r"(?i)(pass(word|wd)?|secret|token|api_?key|credential|private_?key)")
SECRET_VALUE = re.compile(
    r"-----BEGIN|eyJ[A-Za-z0-9_-]{10,}\.|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|xox[abp]-|://[^/\s:@]+:[^/\s:@]+@"
)


def secret_names(value: str) -> list[str]:
    """Return the variables of an Environment= line that look like secrets; never their values."""
    found = []
    for match in re.finditer(r"\"?([A-Za-z_][A-Za-z0-9_]*)=(\"[^\"]*\"|[^\s\"]*)", value):
        name, content = match[1], match[2].strip('"')
        file_like = name.upper().endswith(("_FILE", "_PATH", "_DIR")) or content.startswith("/")
        if content and (SECRET_VALUE.search(content) or (SECRET_NAME.search(name) and not file_like)):
            found.append(name)
    return found
