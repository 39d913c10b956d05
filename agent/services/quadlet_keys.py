"""The keys of a Quadlet's [Container] by the podman that first took them, as its releases 4.4 to 5.8 have it."""

from __future__ import annotations

Version = tuple[int, int]

_BY_VERSION: dict[Version, str] = {
    (4, 4): """
        AddCapability AddDevice Annotation ContainerName DropCapability Environment EnvironmentFile EnvironmentHost Exec
        ExposeHostPort Group Image Label Network NoNewPrivileges Notify PodmanArgs PublishPort ReadOnly RemapGid
        RemapUid RemapUidSize RemapUsers RunInit SeccompProfile Timezone User VolatileTmp Volume
    """,
    (4, 5): """
        HealthCmd HealthInterval HealthOnFailure HealthRetries HealthStartPeriod HealthStartupCmd HealthStartupInterval
        HealthStartupRetries HealthStartupSuccess HealthStartupTimeout HealthTimeout IP IP6 LogDriver Mount Rootfs
        Secret SecurityLabelDisable SecurityLabelFileType SecurityLabelLevel SecurityLabelType Tmpfs UserNS
    """,
    (4, 6): "AutoUpdate HostName Mask Pull SecurityLabelNested Sysctl Unmask WorkingDir",
    (4, 7): "DNS DNSOption DNSSearch PidsLimit ShmSize Ulimit",
    (4, 8): "ContainersConfModule GIDMap GlobalArgs ReadOnlyTmpfs SubGIDMap SubUIDMap UIDMap",
    (5, 0): "Entrypoint Pod StopTimeout",
    (5, 1): "GroupAdd",
    (5, 2): "LogOpt NetworkAlias StopSignal",
    (5, 3): "AddHost CgroupsMode HealthLogDestination HealthMaxLogCount HealthMaxLogSize ServiceName StartWithPod",
    (5, 5): "Memory ReloadCmd ReloadSignal Retry RetryDelay",
    (5, 7): "HttpProxy",
    (5, 8): "AppArmor",
}
SINCE: dict[str, Version] = {key: version for version, keys in _BY_VERSION.items() for key in keys.split()}
NEWEST: Version = (5, 8)
"""The last release whose keys are known here: what a newer one may have added is no error."""
