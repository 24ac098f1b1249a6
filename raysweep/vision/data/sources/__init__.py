"""The sources: functions `(config, root) -> RawData`, found by name through `registry.DATA_SOURCES`.

Each looks at what lies under `root` and says what is absent; none downloads, none decodes.
"""
