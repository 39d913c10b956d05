"""Which environment variables decide what code a program runs, and so need a grant of their own (`env:NAME`).

A list like this can't be complete: any program may read any variable. It holds what the loaders, shells, language
runtimes, build tools and client programs of a common host read; a grant on a program with habits of its own should be
on a wrapper that clears its environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from opsexec.capability import Requirement
from opsexec.errors import BadStep
from opsexec.secret import Secret

RUN_MARKER = "OPSEXEC_RUN"
"""Every process of a run carries this variable; it is how the tree is found again (see docs/architecture.md)."""

_NAMES = """
    PATH HOME SHELL TMPDIR IFS ENV CDPATH GLOBIGNORE EXECIGNORE SHELLOPTS BASHOPTS PS0 PS1 PS2 PS4 PROMPT_COMMAND
    FPATH ZDOTDIR NULLCMD READNULLCMD TMPPREFIX HISTFILE INPUTRC FCEDIT GCONV_PATH GETCONF_DIR LOCPATH NLSPATH
    PATH_LOCALE TZDIR NIS_PATH HOSTALIASES LOCALDOMAIN RESOLV_HOST_CONF RES_OPTIONS LIBPATH SHLIB_PATH AUTHSTATE
    VAR_ACE USR_ACE DLC_ACE TERMINFO TERMINFO_DIRS TERMPATH TERMCAP EDITOR VISUAL PAGER MANPAGER MANOPT MANPATH
    BROWSER LESSOPEN LESSCLOSE LESSKEY LESSKEYIN LESSKEY_CONTENT LESSKEYIN_SYSTEM LESS MORE VIM VIMINIT VIMRUNTIME
    MYVIMRC EXINIT EMACSLOADPATH EMACSDATA HGRCPATH HGEDITOR HG SVN_SSH SVN_EDITOR CVS_RSH CVSEDITOR CSCOPE_EDITOR
    FPP_EDITOR SUDO_EDITOR SUDO_ASKPASS SUDO_PROMPT CLASSPATH JAVA_HOME JDK_HOME JRE_HOME JAVA_TOOL_OPTIONS
    JDK_JAVA_OPTIONS JAVA_OPTS _JAVA_OPTIONS IBM_JAVA_OPTIONS MAVEN_OPTS MAVEN_ARGS MAVEN_HOME M2_HOME GRADLE_OPTS
    GRADLE_USER_HOME GRADLE_HOME ANT_OPTS ANT_ARGS ANT_HOME SBT_OPTS SCALA_HOME GROOVY_HOME KOTLIN_HOME CATALINA_OPTS
    CATALINA_HOME CATALINA_BASE PHPRC PHP_INI_SCAN_DIR TCLLIBPATH TCL_LIBRARY TK_LIBRARY ERL_LIBS ERL_FLAGS ERL_AFLAGS
    ERL_ZFLAGS ELIXIR_ERL_OPTIONS GEM_HOME GEM_PATH IRBRC R_HOME R_PROFILE R_PROFILE_USER R_ENVIRON R_ENVIRON_USER
    R_LIBS R_LIBS_USER R_LIBS_SITE GOROOT GOPATH GOBIN GOENV GOFLAGS GOTOOLCHAIN GOTOOLDIR GOPROXY GONOSUMDB
    GONOSUMCHECK GOSUMDB GOINSECURE GOPRIVATE GHC_PACKAGE_PATH GHC_ENVIRONMENT GHCRTS OCAMLPATH CAML_LD_LIBRARY_PATH
    OCAMLRUNPARAM SBCL_HOME CC CXX CPP LD AR AS NM RANLIB STRIP FC CFLAGS CXXFLAGS CPPFLAGS LDFLAGS COMPILER_PATH
    LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH GCC_EXEC_PREFIX MAKE MAKEFLAGS MAKEFILES MFLAGS GNUMAKEFLAGS
    MAKESHELL MAKEOVERRIDES RUSTC RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTDOC RUSTDOCFLAGS RUSTFLAGS OPENSSL_CONF
    OPENSSL_CONF_INCLUDE OPENSSL_MODULES OPENSSL_ENGINES SSL_CERT_FILE SSL_CERT_DIR SSLKEYLOGFILE CURL_CA_BUNDLE
    REQUESTS_CA_BUNDLE GNUTLS_SYSTEM_PRIORITY_FILE GNUTLS_SYSTEM_TRUST_FILE NSS_WRAPPER_PASSWD SASL_PATH
    SASL_CONF_PATH LDAPCONF LDAPRC GNUPGHOME GPG_AGENT_INFO P11_KIT_STRICT PKCS11_PROVIDER_MODULE CURL_HOME WGETRC
    NETRC SYSTEM_WGETRC BOTO_CONFIG KUBECONFIG KUBE_EDITOR VAULT_CONFIG_PATH VAGRANT_VAGRANTFILE ODBCINI ODBCSYSINI
    ODBCINSTINI ORACLE_HOME TNS_ADMIN PGSYSCONFDIR PGSERVICEFILE PGPASSFILE PSQLRC PSQL_EDITOR PSQL_PAGER MYSQL_HOME
    MYSQL_GROUP_SUFFIX LIBMYSQL_PLUGIN_DIR LIBMYSQL_PLUGINS LIBMYSQL_ENABLE_CLEARTEXT_PLUGIN REDISCLI_RCFILE
    GI_TYPELIB_PATH GIO_EXTRA_MODULES GIO_MODULE_DIR GSETTINGS_SCHEMA_DIR GDK_PIXBUF_MODULE_FILE GDK_PIXBUF_MODULEDIR
    ALSA_CONFIG_PATH ALSA_PLUGIN_DIR LIBGL_DRIVERS_PATH LIBVA_DRIVERS_PATH VDPAU_DRIVER_PATH VK_ICD_FILENAMES
    VK_LAYER_PATH OCL_ICD_VENDORS FONTCONFIG_FILE FONTCONFIG_PATH MAGICK_CONFIGURE_PATH MAGICK_CODER_MODULE_PATH
    GS_LIB GS_OPTIONS DBUS_SESSION_BUS_ADDRESS DBUS_SYSTEM_BUS_ADDRESS DISPLAY XAUTHORITY WAYLAND_DISPLAY XAPPLRESDIR
    XENVIRONMENT NODE_OPTIONS NODE_PATH NODE_EXTRA_CA_CERTS NODE_TLS_REJECT_UNAUTHORIZED NODE_REPL_EXTERNAL_MODULE
    NODE_ICU_DATA NODE_V8_COVERAGE NODE_REDIRECT_WARNINGS DOCKER_HOST DOCKER_CONFIG DOCKER_CONTEXT DOCKER_TLS_VERIFY
    DOCKER_CERT_PATH CONTAINER_HOST CONTAINER_CONNECTION CONTAINER_SSHKEY TF_DATA_DIR TF_PLUGIN_CACHE_DIR VIRTUAL_ENV
    AWKPATH AWKLIBPATH M4PATH GUILE_LOAD_PATH GUILE_LOAD_COMPILED_PATH SCREENRC TMUX_TMPDIR MAILRC MAILCAPS
    TAR_OPTIONS GZIP XZ_OPT XZ_DEFAULTS ZIPOPT UNZIP GREP_OPTIONS
"""

LOADER_VARIABLES = frozenset(_NAMES.split())
"""From ld.so(8), glibc's sysdeps/generic/unsecvars.h, sudo's plugins/sudoers/env.c, bash(1), environ(7) and the manuals
of the programs that read them."""

LOADER_PREFIXES = (
    "LD_", "LDR_", "_RLD", "DYLD_", "MALLOC_", "GLIBC_", "BASH_", "KRB5", "GSS_",
    "PYTHON", "PIP_", "UV_", "CONDA_", "POETRY_", "PIPENV_", "PERL", "RUBY", "BUNDLE_", "BUNDLER_",
    "NPM_CONFIG_", "npm_config_", "YARN_", "PNPM_", "COREPACK_", "DENO_", "BUN_", "LUA_", "JULIA_", "DOTNET_", "NUGET_",
    "CORECLR_", "COMPOSER_", "CARGO_", "RUSTUP_", "CGO_", "CMAKE_", "PKG_CONFIG", "CCACHE_",
    "GIT_", "SSH_", "RSYNC_", "DOCKER_CLI_", "CONTAINERS_", "PODMAN_", "BUILDAH_", "ANSIBLE_", "TF_CLI_", "HELM_",
    "AWS_CONFIG", "AWS_SHARED_", "CLOUDSDK_", "SYSTEMD_", "XDG_", "GTK", "GST_", "QT_", "QML", "OPSEXEC_",
)  # fmt: skip
"""Families of which every member configures a loader, a runtime, or a client that runs programs."""

_BY_VALUE = frozenset(["TZ", "TERM", "LANG", "LANGUAGE", "LINGUAS", "COLORTERM"])
"""As sudoers(5) has them in env_check: harmless names of a zone, a terminal or a language, unless they hold a path."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def is_loader(name: str) -> bool:
    """True when this variable decides, whatever its value, which code or configuration a program loads."""
    return name in LOADER_VARIABLES or name.startswith(LOADER_PREFIXES)


def _loads(name: str, value: str) -> bool:
    """True when setting `name` to `value` decides what code runs."""
    # An old bash takes every "() {" for a function, and runs what follows it.
    if is_loader(name) or value.startswith("()"):
        return True
    if name == "TZ":
        return value.startswith((":", "/")) or ".." in value
    return (name in _BY_VALUE or name.startswith("LC_")) and ("/" in value or "%" in value)


def environment_needs(env: Mapping[str, str | Secret]) -> tuple[Requirement, ...]:
    """Return an `env` requirement for each variable that decides which code a program loads.

    Raises BadStep for a malformed name, a value with NUL, or the marker that opsexec itself sets.
    """
    if not isinstance(env, Mapping):
        raise BadStep("env is no map of names to values", hint='like {"LANG": "C"}')
    needs = []
    for name, secret in env.items():
        value = secret.reveal() if isinstance(secret, Secret) else secret
        texts: tuple[object, object] = (name, value)
        if not all(isinstance(text, str) for text in texts):
            raise BadStep(f"the environment's {name!r} is no text, or its value isn't", hint="both are text")
        if not _VARIABLE.match(name):
            raise BadStep(f"environment name {name[:40]!r} is malformed", hint="letters, digits and _")
        if name == RUN_MARKER:
            raise BadStep(f"{RUN_MARKER} is set by opsexec itself", hint="use another name")
        if "\0" in value:
            raise BadStep(f"the value of {name} holds a NUL byte", hint="an environment can't carry it; use stdin")
        if _loads(name, value):
            needs.append(Requirement("env", name))
    return tuple(needs)
