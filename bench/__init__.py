"""Side by side: the gateway, a plain proxy and other gateways in front of the same fake provider, on one machine.

`make bench` runs it at length and writes docs/performance.md; `make bench-smoke` is the short form that guards
against gross regressions. Everything is on 127.0.0.1; nothing here is imported by the gateway.
"""
