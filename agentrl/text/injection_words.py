"""The words of `agentrl.text.injection`: what programs say of failures, and what they never may offer."""

from __future__ import annotations

from typing import Final

_KNOWN = """
a aborted about absolute abstract acceptable accepted accepts access action active actual additional addr
address addresses after again against aggregate algorithm alias alignment all allocate allocated allocation
allowed already also an and another any appear appears application appropriate arb architecture archive are
arg args argument arguments array arrays as ascii asks assert assertion assignable assigned assignment
associated async at attempted attempts attribute attributes automatically available awaited backend bad base
based bash basic batch be because been before began begins behavior being below between beyond big bin binary
binding bit bitmap bits block blocked blocks body bool boolean borrow borrowed borrowing both bracket
brackets branch branches broken buffer buffers bug build builtin busy but by byte bytes cache callable
callback called caller calls can candidate candidates cannot capable case cases cast casts category cause
changed changes channel char character characters charset checkbox child choice choices cipher class classes
clause cli client cloning close closed code collected colon color column columns combination combined comes
comma command commands comment commit common compatible compilation compiled compiler complex component
components compound compressed compression condition config configuration configured conflict connection
const constant constraint constructor contain container containing contains content contents context control
conversion converted core coroutine correct correctly corresponding corrupt corrupted cost could count counts
crate create created creation current currently cursor cycle daemon data database databases dataset date
datetime deb decimal declaration declared dedent default defaults defined definition definitions delimiter
delivered denied dependencies dependency depends deployment deprecated description descriptor deselected
destination detach detail details detected device devices dict dictionary did different digest digit digits
dimension dimensions dir direction directive directly directories directory disabled disk dispatched
distribution divergent divided division do document does doesn domain done double down driver due dumped
duplicate during e each echo either element elements elsif email empty enable enabled encoded encoder
encoding encountered encryption end ended ends enoent enough entered entity entries entry entrypoint enum
equal err errno error errors even event events exact exactly example exceeded exceeds exclusive executable
executed exist existing exists exit expected expecting expects experiment explicit expression expressions
extended extension extent external extra failed fails failure fallback false family fatal fault feature
features few field fields file filename files filesystem fill filter find first fix fixed fixture fixtures
flag flags followed following font for form format forwarded found frame frames from full function functions
general generated generic generics get git given global goes gone got greater group groups had handled
handler hardware has hash hashable have having head header headers height held help here hexadecimal higher
hint holds how identifier if ignored ignoring illegal image images immutable impl implement implemented
implicit implicitly import imported in include included incompatible incomplete inconsistent indefinitely
indent indentation indented index indices indirect ineffective infer inferred infinite info information init
initial initialized inline inlined input inputs inside install installation installed instance int integer
integers integrity internal interpreter into invalid is iso it item items iterable its itself job join json
judge judged just kept key keys keyword killed kind know known label large larger last later layer layout
least length less letter letters level levels libraries library lifetime lifetimes like likely limit line
lines linked links list listed lists literal loaded loader loads loc local locale locally locate location
locked lockfile long longer look looks lookup loop lower machine macro magic malformed malloc manifest many
mapped mapping marked match matched matches matching max maximum may maybe mean means meant mechanism media
member memory menu message metadata method metric might minimum mismatch mismatched miss missing mode
modified module modules modulo more most moved msg multiple must mutable name named names namespace
namespaces near nearest need needed needs negative neither nested never new newline next no node nodes none
nor normal not notation note nothing null number numbers object objects obsolete occurred occurs octal odd of
off offset old omitting on once one only onto open opened operand operands operation operator option optional
options or order original other otherwise out output outside over overflow overload overwritten ownership
package packages packet pad pair parameter parameters params parent parentheses parents parse parsed parser
parsing part partial partition parts passed path pathname paths pathspec pattern patterns peer pending per
performance perhaps permission permitted pipe pixels place platform please plugin pods point pointed pointer
pointing policy port ports pos position positional positive possible possibly power precise precision
predicate prefetch prefix prepare present preset priority private probably problem proc process produce
profile prog program project proper properly properties property protocol provided provider pull pulling
python query queue quota quote quotes ran random range reached read readable reader reading reads ready
reassigned rebase received recognized reconcile records reduction ref reference referenced refers refs
refused regex regexp region registered regular rejected rejects relation reload remote remove removed renamed
replaced replicas reported repository requested requests require required requirement requirements requires
reserved resolution resource resources response rest result results retired return returned returns right
route row rows rule rules running runtime said same samples says scalar schema scheme scope script search
second section see segment segmentation segments select selected selector self semantic semicolon separate
separator sequence sequences serial server service session setting setup sh shared shell short shorter should
showed side signature signed similar simple since single size sizes skipped skipping slice slots small
smaller so sockets solution solve solved some sorted source sources space spaces sparse spec special specific
specification specified specifier src stack staged stale stalled standard started starts stash stat state
statement statements static station status stdin stdout step still stop stopped stored str stream strict
string strings struct structs structure subclass subcommand subcommands subject subsystem such suffix
suggested suggestion suggestions suitable suite supplied support supported supports sure symbol symbols
symlink symtab syntax sys tab table tables tag tags takes target task temp template temporary tensor terminal
terminated text than that the them there these third this those thread three threshold time timed timeout
times timestamp tip to too tool tracked trailing trait traits transport tree true try tuple twice two type
types uid unable undeclared undefined under underflow unexpected unexpectedly unhashable unicode union unique
unit units unix unknown unmet unrecognized unsigned unstaged unsupported unterminated unused up updated
updates upper upstream usable usage use used using valid value values variable variables variant vectorized
verification verity version versions very via violates volume want warning warnings was weak went were what
when where whether which while whitespace width wildcard will window with within without word words work
works workspace would writable wrong xml yet you your zero zone
"""
KNOWN: Final = frozenset(_KNOWN.split())
"""The words of which programs make what they say of a failure: those most often in the messages of common ones. The few
verbs among them that could order are told by what stands around them."""
_NEVER = """
admin allow-root antivirus authorized_keys bypass chmod chown crontab dangerously dd delete destroy doas drop
env erase eval exec exfil exfiltrate firewall force halt hard history insecure kill killall mkfs no-verify
nogpgcheck passwd password pkill preload printenv privileged purge reboot revoke rm root sandbox secret
security send shadow shred shutdown source sudo sudoers token transfer truncate trusted-host unauthenticated
unlink unrestricted unsafe upload whoami wipe
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
