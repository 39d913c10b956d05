"""Variables that decide what code runs need a grant; ordinary ones don't."""

from __future__ import annotations

import pytest

from opsexec.errors import BadStep
from opsexec.secret import Secret
from opsexec.steps import Exec, Shell, Tty
from opsexec.steps.environment import LOADER_PREFIXES, LOADER_VARIABLES, is_loader

SUDO_DELETES = """IFS CDPATH LOCALDOMAIN RES_OPTIONS HOSTALIASES NLSPATH PATH_LOCALE LD_PRELOAD _RLD_LIST SHLIB_PATH
LDR_PRELOAD LIBPATH AUTHSTATE DYLD_INSERT_LIBRARIES KRB5_CONFIG KRB5_KTNAME VAR_ACE USR_ACE DLC_ACE TERMINFO
TERMINFO_DIRS TERMPATH TERMCAP ENV BASH_ENV PS4 GLOBIGNORE BASHOPTS SHELLOPTS JAVA_TOOL_OPTIONS PERLIO_DEBUG PERLLIB
PERL5LIB PERL5OPT PERL5DB FPATH NULLCMD READNULLCMD ZDOTDIR TMPPREFIX PYTHONHOME PYTHONPATH PYTHONINSPECT
PYTHONUSERBASE RUBYLIB RUBYOPT"""
"""sudo 1.9's initial_badenv_table (plugins/sudoers/env.c)."""

GLIBC_DROPS = """GCONV_PATH GETCONF_DIR GLIBC_TUNABLES HOSTALIASES LD_AUDIT LD_BIND_NOT LD_DEBUG LD_DEBUG_OUTPUT
LD_LIBRARY_PATH LD_ORIGIN_PATH LD_PRELOAD LD_PROFILE LD_SHOW_AUXV LOCALDOMAIN LOCPATH MALLOC_ARENA_MAX MALLOC_TRACE
NIS_PATH NLSPATH RESOLV_HOST_CONF RES_OPTIONS TMPDIR TZDIR"""
"""glibc 2.36's UNSECURE_ENVVARS (sysdeps/generic/unsecvars.h)."""

RUN_SOMETHING = """PATH HOME SHELL GIT_SSH_COMMAND GIT_EXTERNAL_DIFF GIT_CONFIG_COUNT SSH_ASKPASS RSYNC_RSH SVN_SSH
HGRCPATH LESSOPEN LESSCLOSE PAGER MANPAGER SYSTEMD_PAGER EDITOR VISUAL SUDO_ASKPASS BROWSER NODE_OPTIONS NODE_PATH
npm_config_script_shell NPM_CONFIG_USERCONFIG JDK_JAVA_OPTIONS MAVEN_OPTS CLASSPATH GEM_HOME BUNDLE_GEMFILE LUA_INIT
LUA_PATH_5_4 PHPRC GOFLAGS RUSTC_WRAPPER CARGO_BUILD_RUSTC MAKEFLAGS CC PIP_INDEX_URL OPENSSL_CONF OPENSSL_ENGINES
SSL_CERT_FILE VIMINIT TAR_OPTIONS KUBECONFIG DOCKER_HOST DOCKER_CONFIG AWS_CONFIG_FILE GTK_MODULES QT_PLUGIN_PATH
XDG_CONFIG_DIRS DBUS_SYSTEM_BUS_ADDRESS OPSEXEC_AUDIT BASH_LOADABLES_PATH PROMPT_COMMAND"""


@pytest.mark.parametrize("name", sorted({*SUDO_DELETES.split(), *GLIBC_DROPS.split(), *RUN_SOMETHING.split()}))
def test_a_variable_that_decides_what_code_runs_needs_its_grant(name):
    for step in (
        Exec(["/usr/bin/id"], env={name: "x"}),
        Exec(["/usr/bin/id"], env={name: Secret("x")}),
        Shell("act", "id", env={name: "x"}),
        Tty(argv=["/bin/sh"], env={name: "x"}),
    ):
        assert f"env:{name}" in map(str, step.requires())


ORDINARY = ["GREETING", "TOKEN", "DB_PASSWORD", "NODE_ENV", "DEBIAN_FRONTEND", "TF_VAR_x"]
ORDINARY += ["version", "git_branch", "node_count"]  # a runbook's variables are named like this


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_variable_needs_none(name):
    assert [str(need) for need in Exec(["/usr/bin/id"], env={name: "x/y"}).requires()] == ["exec:/usr/bin/id"]


@pytest.mark.parametrize(
    ("name", "harmless", "loads"),
    [
        ("TZ", "Europe/Berlin", ":/tmp/zone"),
        ("TZ", "UTC", "/tmp/zone"),
        ("TZ", "EST5EDT", "../../../tmp/zone"),
        ("LANG", "de_DE.UTF-8", "/tmp/locale"),
        ("LC_ALL", "C", "%s%n"),
        ("TERM", "xterm-256color", "../tmp/x"),
        ("GREETING", "(hi)", "() { :; }; id"),
    ],
)
def test_a_name_of_a_zone_a_language_or_a_terminal_needs_a_grant_only_when_it_is_a_path(name, harmless, loads):
    assert len(Exec(["/usr/bin/id"], env={name: harmless}).requires()) == 1
    assert str(Exec(["/usr/bin/id"], env={name: loads}).requires()[1]) == f"env:{name}"


def test_a_terminals_name_is_no_path():
    for term in ("../../tmp/evil", "/tmp/evil", "", "xterm\n"):
        with pytest.raises(BadStep):
            Tty(argv=["/bin/sh"], term=term)


def test_the_list_names_nothing_twice():
    doubled = [name for name in LOADER_VARIABLES if name.startswith(LOADER_PREFIXES)]
    assert doubled == []
    assert all(map(is_loader, LOADER_VARIABLES))
