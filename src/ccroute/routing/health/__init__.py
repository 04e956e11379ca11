"""Which deployments may be asked: breakers, pauses and refused keys.

Knows the reports of attempts; must not know what is sent.
"""
