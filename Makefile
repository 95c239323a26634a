# Shortcuts for those who work on dropscribe. The README's two commands need none of them.
.PHONY: test test-all lock lint format docs wheel deb image bench clean

.venv:
	python3 -m venv .venv
	.venv/bin/pip install -q -r locks/dev.txt
	.venv/bin/pip install -q --no-deps --no-build-isolation -e .

test: .venv
	.venv/bin/pytest

test-all: .venv
	.venv/bin/pytest -m "slow or not slow"

lock:
	sh packaging/lock.sh

lint: .venv
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv
	.venv/bin/ruff format .

docs: .venv
	.venv/bin/python packaging/config_reference.py > docs/config.md
	.venv/bin/python packaging/config_reference.py example > config.example.yaml

bench: .venv
	.venv/bin/pip install -q -e '.[bench]'
	.venv/bin/python bench/run.py

wheel: .venv
	.venv/bin/hatchling build -d dist

deb:
	sh packaging/build_deb.sh dist

image:
	buildah build --tag dropscribe .

clean:
	rm -rf dist build .venv try
