import pytest

for package in ("starlette", "uvicorn", "httptools"):
    pytest.importorskip(package, reason='needs the extra "web": pip install "framewire[web]"')
