"""Words that no tool may offer, and words that stand in every call."""

from __future__ import annotations

from typing import Final

_NEVER = """
admin allow-root allow-url-fopen allow-url-include antivirus authorized_keys blkdiscard bypass chattr chmod
chown chpasswd crontab crypt dangerously dd del delete deltree destroy diskpart doas drop dropdatabase dropdb env
erase eval exec exfil exfiltrate fdisk firewall flushall flushdb force format-volume fsck halt hard history
insecure iptables keylogger kill killall ld-preload mimikatz mkfs ncat netcat nft no-verify nogpgcheck nohup
nuke passwd password permissive pkexec pkill poweroff preload printenv privileged prune purge reboot regedit
revoke rimraf rm rmdir rmtree root sandbox sdelete secret security selinux send setcap setenforce setgid
setuid shadow shred shutdown skip-grant-tables socat source sudo sudoers suid sysrq systemctl transfer
truncate trusted-host ufw unauthenticated unconfined uninstall unlink unrestricted unsafe upload usermod
visudo whoami wipe wipefs xmrig zeroize
"""
NEVER: Final = frozenset(_NEVER.split())
"""Names that no tool may offer: what destroys, reaches out, runs other code or shows what is secret."""
_DESTROY = """
clear delete destroy discard drop empty erase kill nuke overwrite purge remove reset rm shred truncate unlink
wipe
"""
DESTROY: Final = frozenset(_DESTROY.split())
"""Verbs of an order after which something is gone."""
_KEPT = """
account accounts all backup backups branch branches bucket content contents data database databases directory
directories disk disks everything file files folder folders history it log logs repo repository table tables them
volume volumes
"""
KEPT: Final = frozenset(_KEPT.split())
"""What an order to destroy is about."""
_STOP = """
a all an and are be can csv false file for from html in instead into is it its json md must new not null of
on one or please run should that the then this to toml true try txt use was with yaml yml you your
"""
STOP: Final = frozenset(_STOP.split())
"""Words that stand in every call and text."""
_TOOLS = """
arguments bash cmd command exec run shell tool
"""
TOOLS: Final = frozenset(_TOOLS.split())
"""Names of tools and arguments that stand in every call and say nothing of this one."""
