"""The keys of launchd.plist(5) with the types of their values, as data."""

from __future__ import annotations

import re

Kinds = tuple[type, ...]

LABEL = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+\Z")
_TEXTS = """
    Label UserName GroupName Program BundleProgram RootDirectory WorkingDirectory StandardInPath StandardOutPath
    StandardErrorPath ProcessType
"""
_FLAGS = """
    Disabled InitGroups EnableGlobbing EnableTransactions EnablePressuredExit OnDemand ServiceIPC RunAtLoad StartOnMount
    Debug WaitForDebugger AbandonProcessGroup LowPriorityIO LowPriorityBackgroundIO LaunchOnlyOnce SessionCreate
    LegacyTimers HopefullyExitsFirst HopefullyExitsLast MaterializeDatalessFiles
"""
_LISTS = "ProgramArguments WatchPaths QueueDirectories LimitLoadToHosts LimitLoadFromHosts"
_DICTS = """
    EnvironmentVariables Sockets SoftResourceLimits HardResourceLimits MachServices LaunchEvents inetdCompatibility
    LimitLoadToHardware LimitLoadFromHardware
"""
TYPES: dict[str, Kinds] = {
    **dict.fromkeys(_TEXTS.split(), (str,)),
    **dict.fromkeys(_FLAGS.split(), (bool,)),
    **dict.fromkeys(["TimeOut", "ExitTimeOut", "ThrottleInterval", "StartInterval", "Nice"], (int,)),
    **dict.fromkeys(_LISTS.split(), (list,)),
    **dict.fromkeys(_DICTS.split(), (dict,)),
    "LimitLoadToSessionType": (str, list), "AssociatedBundleIdentifiers": (str, list), "Umask": (int, str),
    "KeepAlive": (bool, dict), "StartCalendarInterval": (dict, list),
}  # fmt: skip

_LIMITS = "Core CPU Data FileSize MemoryLock NumberOfFiles NumberOfProcesses ResidentSetSize Stack"
SUBKEYS: dict[str, dict[str, Kinds]] = {
    "KeepAlive": {
        **dict.fromkeys(["SuccessfulExit", "NetworkState", "Crashed", "AfterInitialDemand"], (bool,)),
        **dict.fromkeys(["PathState", "OtherJobEnabled"], (dict,)),
    },
    "SoftResourceLimits": dict.fromkeys(_LIMITS.split(), (int,)),
    "HardResourceLimits": dict.fromkeys(_LIMITS.split(), (int,)),
    "inetdCompatibility": {"Wait": (bool,), "Instances": (int,)},
}
"""The keys of inner dicts whose names launchd fixes; of Sockets the names are the job's own."""

_SOCKET = "SockType SockNodeName SockFamily SockProtocol SockPathName SecureSocketWithKey MulticastGroup"
SOCKET: dict[str, Kinds] = {
    **dict.fromkeys(_SOCKET.split(), (str,)),
    "SockServiceName": (str, int), "SockPassive": (bool,), "Bonjour": (bool, str, list),
    **dict.fromkeys(["SockPathOwner", "SockPathGroup", "SockPathMode"], (int,)),
}  # fmt: skip
"""The keys of each of a job's Sockets."""

DEPRECATED = ("OnDemand", "ServiceIPC", "inetdCompatibility", "HopefullyExitsFirst", "HopefullyExitsLast", "Debug")
PATHS = ("Program", "WorkingDirectory", "RootDirectory", "StandardInPath", "StandardOutPath", "StandardErrorPath")
LIST_PATHS = ("WatchPaths", "QueueDirectories")
CALENDAR = {"Minute": 59, "Hour": 23, "Day": 31, "Weekday": 7, "Month": 12}
PROCESS_TYPES = ("Background", "Standard", "Adaptive", "Interactive")
SESSIONS = ("Aqua", "Background", "LoginWindow", "StandardIO", "System")
