# The README's two commands, line for line.
demo:
	python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[all]' && .venv/bin/jaxsci demo

test:
	python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e '.[test]' && .venv/bin/python -m pytest

slow: test
	.venv/bin/python -m pytest -m slow

.PHONY: demo test slow
