"""The words of `agentrl.text.injection`: what programs say of failures, and what they never may offer."""

from __future__ import annotations

from typing import Final

_KNOWN = """
2d 3d a abbreviated abbreviation aborted about absolute abstract acceptable accepted accepts access
accessible action active actual addition additional addr address addresses after again against aggregate aka
algorithm alias alignment all allocate allocated allocation allowed alphabetical already also ampersand an
and annotation another any apostrophe appear appears application appropriate approximately arb architecture
archive are arg args argument arguments arithmetic array arrays as ascending ascii asks assert assertion
assignable assigned assigning assignment assigns associated asterisk async at attempted attempts attribute
attributes automatically available average averages awaited axis backend backslash backslashes bad balanced
base based bash basic batch batched be because been before began begins behavior being below between beyond
big bin binary binding bit bitmap bits block blocked blocks body bool boolean borrow borrowed borrowing both
boundary bracket brackets branch branches broken buffer buffers bug build builtin busy but by byte bytes
cache callable callback called caller calls can candidate candidates cannot capable case cases cast casts
category cause caused cell celsius certain changed changes channel char character characters chars charset
checkbox checked child choice choices cipher class classes clause cli client cloning close closed closest
closing code collapsed collected colon color column columns combination combined comes comma command commands
comment commit common comparable comparison compatibility compatible compilation compiled compiler compilers
complex component components compound compressed compression computation computed condition conditional
config configuration configured conflict connection const constant constraint constructor contain container
containing contains content contents context contiguous control conversion conversions converted coordinate
core coroutine correct correctly corresponding corrupt corrupted cost could count country counts cowardly cpu
crashed crate create created creation csv cuda current currently cursor cycle daemon data database databases
dataset date datetime daylight deb decimal declaration declare declared dedent default defaults defined
definite definition definitions degrees delimiter delivered denied denominator dependencies dependency
depends deployment deprecated descending description descriptor deselected destination detach detail details
detected device devices diagonal dialog dict dictionary did different digest digit digits dimension
dimensions dir direction directive directly directories directory disabled disk dispatched distribution
divergent divided division do document does doesn domain done dot dots double down driver dropdown due dumped
duplicate duplicates during e each echo editor eight either element elements elsif email embedding empty
enable enabled enclosing encoded encoder encoding encodings encountered encryption end ended ends enoent
enough entered entering entity entries entry entrypoint enum enumeration eof equal equality err errno error
errors escape estimated estimator evaluated evaluation even event events exact exactly example exceeded
exceeds except exclusive executable executed execution exhausted exist existing exists exit expected
expecting expects experiment expiration explicit explicitly exponent expression expressions extended
extension extent external extra failed fails failure fallback false family fatal fault feature features few
field fields file filename files filesystem fill filter find finished first fit fitted five fix fixed fixture
fixtures flag flags float floating folder folders followed following font for forgot forgotten form format
forms forwarded forwarding found four fraction frame frames from full function functions future general
generated generator generic generics geometry get git given global goes gone got gpu gradient graph greater
grid group groups had handled handler hardware has hash hashable have having head header headers heap height
held help here hexadecimal higher hint holds hour hours how html http https hyphen hyphens identifier if
ignored ignoring illegal image images immutable impl implement implemented implicit implicitly import
importable imported in inaccessible include included incompatible incomplete inconsistent indefinitely indent
indentation indented index indices indirect ineffective infer inferred infinite infinity info information
init initial initialization initialized inline inlined inner input inputs inside install installation
installed instance int integer integers integral integrity interactive interface internal interpreter into
invalid invoked invoking is iso it item items iterable iterator its itself job join json judge judged just
kept kernel key keys keyword killed kilobytes kind know known label labels large larger last later latest
latitude layer layout least left legacy length less letter letters level levels lexical libraries library
lifetime lifetimes like likely limit line lines linkage linked linker links list listed lists literal loaded
loader loading loads loc local locale locally locate location locked lockfile long longer longitude look
looks lookup loop loss lower lowercase machine macro magic main maintained malformed malloc manifest mantissa
many mapped mapping markdown marked match matched matches matching math matrix max maximum may maybe mean
means meant mechanism media megabyte megabytes member memory menu merged message metadata method metric might
migration millimeters minimum minute minutes mismatch mismatched miss missing mixed mode model models
modification modifications modified module modules modulo modulus month months more most moved msg multiple
multiplication must mutable mutually name named names namespace namespaces nan near nearest need needed needs
negative neither nested never new newline next nil nine no node nodes none nonzero nor normal not notation
note nothing null number numbers numeric object objects obsolete occurred occurs octal odd of off offset old
omitting on once one only onto open opened opening operand operands operation operations operator opposite
option optional options or order ordinal original other otherwise out outer output outside over overflow
overlapping overload overwritten ownership package packages packet pad padding pair paragraph parameter
parameters params parent parentheses parenthesis parents parse parsed parser parsing part partial partition
parts passed path pathname paths pathspec pattern patterns peer pending per performance perhaps permission
permitted pinned pipe pixels place platform please plugin plural pods point pointed pointer pointers pointing
policy polynomial port ports pos position positional positive possible possibly power precedence preceding
precise precision predeclare predefined predicate prefetch prefix prefixes prepare preprocessor present
preset primary primitive priority private probability probably problem proc process produce profile prog
program project pronoun proper properly properties property protocol provided provider pull pulling purely
python quantity queries query queue quota quote quoted quotes quoting raise raised ran random range ratio
reachable reached read readable reader reading reads ready reassigned rebase received recent recently
recognized reconcile records recursion recursive redirect redirection reduction redundant ref reference
referenced refers refs refused refusing regex regexp region regions registered regular rejected rejects
relation relative reload remote remove removed renamed repeated replaced replicas reported repository
requested requests require required requirement requirements requires reserved resolution resource resources
respectively response rest result results retired return returned returns revision revisions right rounding
route routine row rows rule rules running runtime said same samples sampling says scalar schema scheme scope
script search second seconds section see segment segmentation segments select selected selector self semantic
semantics semicolon separate separator sequence sequences serial server service session setting setup seven
sh shallow shapes shared shell short shorter should showed side signal signature signed significand similar
simple since single singleton singular six size sizes skipped skipping slash slashes slice slots small
smaller so sockets solution solve solved solver some something sorted source sources space spaces sparse spec
special specific specification specified specifier spelling square squared src stable stack stage staged
stages stale stalled standard started starting starts stash stat state statement statements static station
status stdin stdout step still stop stopped stored str stray stream strict string strings struct structs
structure subclass subcommand subcommands subject subset subsystem subtraction such suffix suffixes suggested
suggestion suggestions suitable suite summary supplied support supported supports sure surrounding symbol
symbolic symbols symlink symtab syntax sys syscall tab table tables tag tags takes target task temp template
temporary ten tensor tensors terminal terminated text than that the them there these third this those
thousand thread three threshold thrown throws tilde time timed timeout times timestamp timezone tip to
tokeniser tokenizer toml too tool traceback tracked trailing trait traits translation transport tree true
truth try tuple twice two type types uid unable undeclared undefined under underflow underscore underscores
unexpected unexpectedly unhashable unicode uninitialised uninitialized union unique unit units unix unknown
unmatched unmet unrecognized unreported unsigned unstaged unsupported unterminated unused up updated updates
upper uppercase upstream uri uris url urls usable usage usages use used using utility valid validation value
values variable variables variant variants vectorized verification verity version versions vertex very via
violates visibility void volume want wanted warning warnings was weak week weekday weeks weight weights went
were what when where whether which while whitespace whole widget width wildcard will window with within
without word words work works workspace would wrapper writable wrong xml yaml year years yet you your zero
zero-length zone zones
"""
KNOWN: Final = frozenset(_KNOWN.split())
"""The words of which programs make what they say of a failure: those most often in the messages of common ones. The few
verbs among them that could order are told by what stands around them."""
_NEVER = """
admin allow-root allow-url-fopen allow-url-include antivirus authorized_keys blkdiscard bypass chattr chmod
chown chpasswd crontab crypt dangerously dd del delete deltree destroy diskpart doas drop dropdatabase env
erase eval exec exfil exfiltrate fdisk firewall flushall flushdb force format-volume fsck halt hard history
insecure iptables keylogger kill killall ld-preload mimikatz mkfs ncat netcat nft no-verify nogpgcheck nohup
nuke passwd password permissive pkexec pkill poweroff preload printenv privileged prune purge reboot regedit
revoke rimraf rm rmdir rmtree root sandbox sdelete secret security selinux send setcap setenforce setgid
setuid shadow shred shutdown skip-grant-tables socat source sudo sudoers suid sysrq systemctl token transfer
truncate trusted-host ufw unauthenticated unconfined uninstall unlink unrestricted unsafe upload usermod
visudo whoami wipe wipefs xmrig zeroize
"""
NEVER: Final = frozenset(_NEVER.split())
"""Names that no tool may offer: what destroys, reaches out, runs other code or shows what is secret."""
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
LEADS: Final = frozenset((
    "use", "try", "run", "see", "call", "type", "choose", "enter", "prefer", "mean", "meant", "need", "needs", "has",
    "is", "available", "allowed", "expected", "name", "command", "argument", "as", "called", ":", "moved to",
    "renamed to", "replaced by", "asks for",
))  # fmt: skip
"""What stands before the name that an offer brings."""
OFFERS: Final = LEADS | {
    "consider", "instead", "replaced", "renamed", "moved", "now", "asks", "works", "exists", "only", "such", "but",
    "provide", "specify", "add", "pass", "set", "place", "same",
}  # fmt: skip
"""What makes a clause an offer."""
_PEOPLE = """
admin administrator administrators agent agents ai anybody anyone assistant assistants audience author
authors boss bot bots claude colleague company creator customer customers developer developers employee
employer everybody everyone friend guest he helper her him his human humans i judge llm maintainer
maintainers manager me my myself nobody operator operators our ours owner owners people person persons please
reader readers recipient reviewer robot she somebody someone staff supervisor supporter team teams their they
us user users visitor visitors we who you your yours yourself
"""
PEOPLE: Final = frozenset(_PEOPLE.split())
"""Whom an order may speak to or of. A statement of words that nobody knows is about programs."""
_TERMS = """
after afterwards cease daily else ever every everything finally first forever from-now hence henceforth if
immediately instead just later lest let make next now once otherwise ought provided shall should since so
soon then therefore thus till unless until upon via want whenever whereas will would
"""
TERMS: Final = frozenset(_TERMS.split())
"""Conditions and times, behind which a statement of new words may tell what has to be done."""
_DEEDS = """
accept acknowledge activate append approve archive authorise authorize backup ban bcc book bypass cancel cc
change clear click close commit confirm contact copy curl deactivate decode decrypt delete deploy disable
disclose disregard donate download edit enable encrypt erase execute export expose fetch follow forget
forward gather give grant hand hide ignore import inform insert install invite invoke leak load log mail mark
merge modify move notify obey open order output override overwrite paste pay ping praise print promote
publish purchase purge push put rate reboot recommend register release remember remove rename repeat reply
report reset restore retrieve reveal reverse revoke rewrite say sell send share ship show shut skip start
stop store submit subscribe suppress switch tell transfer translate transmit trust turn unlock unsubscribe
update upload vote wipe write
"""
DEEDS: Final = frozenset(_DEEDS.split())
"""What agents may be ordered to do: verbs of statements only where they are denied ("cannot open")."""
_ASSETS = """
antivirus approval approvals audit auditing auditor backup backups bank billing bonus card cards chat
compliance confidential conversation credential credentials credit customer database databases deployment
deposit discount email emails firewall firewalls grader guard guardrail guardrails guidelines history inbox
instruction instructions invoice invoices keychain keyring licence license logging logs mail mailbox money
monitoring oversight passphrase password passwords payment payments payroll phone pin policy privacy private
production prompt prompts protection reward rewards root safeguard safeguards safety salary sandbox scanner
score secret secrets secure security sudo supervision surveillance telemetry transcript vault verification
wallet webhook
"""
ASSETS: Final = frozenset(_ASSETS.split())
"""What attacks are after; a statement that holds one must be of known words, or the action's own."""
_CLAIMS = """
agreed approved authorised authorized cleared confirmation confirmations confirmed consent consented done
entitled exempt granted grants invalidated lifted obsolete overridden replaced superseded trusted unlimited
unlocked unrestricted void waived whitelisted
"""
CLAIMS: Final = frozenset(_CLAIMS.split())
"""What attacks say is allowed now, or holds no more; in a statement of new words only where it is denied."""
_TOPICS = """
accepted allowed answer answers available correct goal goals instruction instructions job mission order
orders plan procedure proper question questions recommended reply right rule rules step steps summary task
tasks way
"""
TOPICS: Final = frozenset(_TOPICS.split())
"""Of what a sentence beside the fault may not tell in new words."""
_WAIVED = """
applies apply enforced forbidden logged monitored necessary needed prohibited required restricted
"""
WAIVED: Final = frozenset(_WAIVED.split())
"""What attacks deny, to say that something is allowed ("no review is needed")."""
SHOWN: Final = frozenset(("known", "valid", "available", "supported", "possible", "allowed", "accepted"))
"""What begins the heading of a list."""
