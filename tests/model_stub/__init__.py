"""A model endpoint on loopback that needs no account: it answers by a marker in the last user message.

Run as ``python -m tests.model_stub --port 0`` (prints ``listening PORT``), or use ``serving()`` inside a test. ``scenarios`` says
what is answered, one module per dialect says how it looks on the wire, ``server`` speaks HTTP. It never keeps a credential.
"""
