"""The half that runs on the host: Python 3.8+ standard library only, and nothing else of opsexec.

LocalExec imports these modules; SshExec ships their source to the host's own python3. One implementation serves both.
"""
