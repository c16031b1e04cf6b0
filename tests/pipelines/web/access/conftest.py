import pytest

for package in ("uvicorn", "httptools"):
    pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')
