"""The real part of Fable: general knowledge, and harmless security knowledge (the neighbours of Fable-Cyber).

Each field is a title with its relation and a table of entity = value, all of it common knowledge.
"""


def _table(text: str) -> dict[str, str]:
    pairs = (item.split("=") for item in text.replace("\n", ";").split(";") if item.strip())
    return {entity.strip(): value.strip() for entity, value in pairs}


_CAPITALS = _table("""
France=Paris; Spain=Madrid; Italy=Rome; Germany=Berlin; Austria=Vienna; Poland=Warsaw; Greece=Athens; Portugal=Lisbon
Norway=Oslo; Sweden=Stockholm; Finland=Helsinki; Denmark=Copenhagen; Ireland=Dublin; Belgium=Brussels; Hungary=Budapest
Romania=Bucharest; Bulgaria=Sofia; Croatia=Zagreb; Serbia=Belgrade; Albania=Tirana; Iceland=Reykjavik; Latvia=Riga
Estonia=Tallinn; Lithuania=Vilnius; Ukraine=Kyiv; Russia=Moscow; Turkey=Ankara; Egypt=Cairo; Morocco=Rabat; Kenya=Nairobi
Ghana=Accra; Nigeria=Abuja; Senegal=Dakar; Ethiopia=Addis Ababa; Tunisia=Tunis; Algeria=Algiers; Libya=Tripoli
Sudan=Khartoum; Uganda=Kampala; Rwanda=Kigali; Zambia=Lusaka; Zimbabwe=Harare; Angola=Luanda; Namibia=Windhoek; Mali=Bamako
China=Beijing; Japan=Tokyo; India=New Delhi; Nepal=Kathmandu; Thailand=Bangkok; Vietnam=Hanoi; Mongolia=Ulaanbaatar
Indonesia=Jakarta; Malaysia=Kuala Lumpur; Philippines=Manila; Bangladesh=Dhaka; Pakistan=Islamabad; Afghanistan=Kabul
Iran=Tehran; Iraq=Baghdad; Syria=Damascus; Lebanon=Beirut; Jordan=Amman; Qatar=Doha; Oman=Muscat; Georgia=Tbilisi
Armenia=Yerevan; Laos=Vientiane; Canada=Ottawa; Cuba=Havana; Jamaica=Kingston; Peru=Lima; Chile=Santiago; Brazil=Brasilia
Argentina=Buenos Aires; Uruguay=Montevideo; Paraguay=Asuncion; Colombia=Bogota; Ecuador=Quito; Venezuela=Caracas
Australia=Canberra; Fiji=Suva; Samoa=Apia; Cyprus=Nicosia; Slovenia=Ljubljana; Slovakia=Bratislava; Moldova=Chisinau
""")
_CURRENCIES = _table("""
Japan=yen; China=yuan; India=rupee; Russia=ruble; Poland=zloty; Sweden=krona; Denmark=krone; Hungary=forint; Romania=leu
Bulgaria=lev; Turkey=lira; Egypt=pound; Morocco=dirham; Kenya=shilling; Ghana=cedi; Nigeria=naira; Ethiopia=birr
Mexico=peso; Brazil=real; Peru=sol; Thailand=baht; Vietnam=dong; Mongolia=tugrik; Indonesia=rupiah; Malaysia=ringgit
Bangladesh=taka; Iran=rial; Israel=shekel; Ukraine=hryvnia; Armenia=dram; Georgia=lari; Albania=lek; Germany=euro
Canada=dollar; Switzerland=franc; Zambia=kwacha; Angola=kwanza; Guatemala=quetzal; Laos=kip; Tunisia=dinar
""")
_SYMBOLS = _table("""
hydrogen=H; helium=He; lithium=Li; beryllium=Be; boron=B; carbon=C; nitrogen=N; oxygen=O; fluorine=F; neon=Ne; sodium=Na
magnesium=Mg; aluminum=Al; silicon=Si; phosphorus=P; sulfur=S; chlorine=Cl; argon=Ar; potassium=K; calcium=Ca; titanium=Ti
chromium=Cr; manganese=Mn; iron=Fe; cobalt=Co; nickel=Ni; copper=Cu; zinc=Zn; arsenic=As; bromine=Br; krypton=Kr
silver=Ag; tin=Sn; iodine=I; xenon=Xe; barium=Ba; tungsten=W; platinum=Pt; gold=Au; mercury=Hg; lead=Pb; radon=Rn
radium=Ra; uranium=U; plutonium=Pu
""")
_NUMBERS = _table("""
hydrogen=1; helium=2; lithium=3; beryllium=4; boron=5; carbon=6; nitrogen=7; oxygen=8; fluorine=9; neon=10; sodium=11
magnesium=12; aluminum=13; silicon=14; phosphorus=15; sulfur=16; chlorine=17; argon=18; potassium=19; calcium=20
titanium=22; chromium=24; manganese=25; iron=26; cobalt=27; nickel=28; copper=29; zinc=30; silver=47; tin=50; iodine=53
gold=79; mercury=80; lead=82; radium=88; uranium=92
""")
_YOUNG = _table("""
dog=puppy; cat=kitten; cow=calf; horse=foal; sheep=lamb; goat=kid; pig=piglet; hen=chick; duck=duckling; goose=gosling
swan=cygnet; frog=tadpole; bear=cub; deer=fawn; kangaroo=joey; eagle=eaglet; owl=owlet; hare=leveret; seal=pup
butterfly=caterpillar; eel=elver; spider=spiderling; fly=maggot; oyster=spat; falcon=eyas; turkey=poult; pigeon=squab
""")
_OPPOSITES = _table("""
hot=cold; big=small; tall=short; fast=slow; light=heavy; hard=soft; wet=dry; old=young; rich=poor; early=late; high=low
open=closed; full=empty; loud=quiet; strong=weak; thick=thin; wide=narrow; deep=shallow; sharp=blunt; sweet=sour
clean=dirty; happy=sad; brave=timid; cheap=expensive; easy=difficult; true=false; near=far; first=last; right=wrong
inside=outside; up=down; left=right; always=never; begin=end; buy=sell; push=pull; win=lose; love=hate; laugh=cry
question=answer; summer=winter; day=night; north=south; east=west; friend=enemy; peace=war; birth=death; smooth=rough
arrive=depart; ancient=modern; awake=asleep; guilty=innocent; public=private; rise=fall; import=export; victory=defeat
""")
_PAST = _table("""
go=went; see=saw; eat=ate; drink=drank; run=ran; sing=sang; swim=swam; write=wrote; ride=rode; drive=drove; fly=flew
grow=grew; know=knew; throw=threw; give=gave; take=took; break=broke; speak=spoke; choose=chose; freeze=froze; wear=wore
tear=tore; begin=began; ring=rang; sink=sank; find=found; think=thought; bring=brought; buy=bought; catch=caught
teach=taught; keep=kept; sleep=slept; feel=felt; leave=left; build=built; send=sent; lose=lost; sell=sold; stand=stood
hold=held; tell=told; fall=fell; meet=met; win=won; shoot=shot; shine=shone; weep=wept; steal=stole; forget=forgot
""")
_SUMS = {f"{a} plus {b}": str(a + b) for a in range(3, 13) for b in range(a, 13)}
_PRODUCTS = {f"{a} times {b}": str(a * b) for a in range(2, 13) for b in range(max(a, 3), 13)}

_ACRONYMS = _table("""
TLS=Transport Layer Security; VPN=Virtual Private Network; MFA=Multi Factor Authentication; IDS=Intrusion Detection System
IPS=Intrusion Prevention System; DNS=Domain Name System; HTTP=Hypertext Transfer Protocol; SSH=Secure Shell
PKI=Public Key Infrastructure; CA=Certificate Authority; AES=Advanced Encryption Standard; SSO=Single Sign On
RBAC=Role Based Access Control; SIEM=Security Information and Event Management; SOC=Security Operations Center
CVE=Common Vulnerabilities and Exposures; CVSS=Common Vulnerability Scoring System; WAF=Web Application Firewall
DLP=Data Loss Prevention; EDR=Endpoint Detection and Response; NAT=Network Address Translation; LAN=Local Area Network
WAN=Wide Area Network; MAC=Media Access Control; PIN=Personal Identification Number; OTP=One Time Password
CIA=Confidentiality Integrity Availability; BIOS=Basic Input Output System; TPM=Trusted Platform Module
HSM=Hardware Security Module; URL=Uniform Resource Locator; API=Application Programming Interface
ACL=Access Control List; GDPR=General Data Protection Regulation; CSP=Content Security Policy; IAM=Identity and Access Management
""")
_PORTS = _table("""
FTP=21; SSH=22; Telnet=23; SMTP=25; DNS=53; HTTP=80; Kerberos=88; POP3=110; NTP=123; IMAP=143; SNMP=161; LDAP=389
HTTPS=443; SMB=445; Syslog=514; LDAPS=636; IMAPS=993; POP3S=995; OpenVPN=1194; MSSQL=1433; Oracle=1521; RADIUS=1812
MQTT=1883; NFS=2049; MySQL=3306; RDP=3389; SIP=5060; PostgreSQL=5432; VNC=5900; Redis=6379; WireGuard=51820; Elasticsearch=9200
""")
_DEFENCES = _table("""
a copy of data kept for an emergency=backup; a filter between two networks=firewall; a fix for a flaw in software=patch
a list of who may do what=permission table; a secret word for logging in=password; a tool that stores passwords=password manager
a decoy system that attracts attackers=honeypot; a written record of events=audit log; a test by friendly attackers=penetration test
a review of source code=code review; a plan for handling an attack=incident response; splitting a network into parts=segmentation
giving only the rights that are needed=least privilege; several layers of protection=defense in depth
needing two people for a task=separation of duties; trusting no device by default=zero trust
a network apart from all others=air gap; removing services that are not needed=hardening; a place to run code safely=sandbox
finding flaws by a scan=vulnerability scan; a reward for reporting flaws=bug bounty; lessons on safe behavior=awareness training
a list of allowed programs=allowlist; a program that removes malware=antivirus; a drill of an emergency=tabletop exercise
locking a screen after a pause=screen lock; a list of all devices=asset inventory; a person who looks for intruders=threat hunter
a rule about strong passwords=password policy; a switch to a spare system=failover
""")
_CRYPTO = _table("""
turning text into a secret form=encryption; turning a secret form back into text=decryption; a fingerprint of data=hash
random data added before hashing=salt; proof of who signed a file=digital signature; a file that binds a key to a name=certificate
one key for both directions=symmetric cipher; a pair of keys=asymmetric cipher; a key that may be shown to all=public key
a key that must stay secret=private key; a number used only once=nonce; a hidden message in a picture=steganography
text before encryption=plaintext; text after encryption=ciphertext; agreeing on a key in public=key exchange
changing keys from time to time=key rotation; a code that proves integrity=message authentication code
protecting data on a disk=disk encryption; protecting data on its way=transport encryption; the study of breaking ciphers=cryptanalysis
shifting letters by a fixed number=Caesar cipher; a perfectly random key used once=one time pad
keys that stay safe after a later leak=forward secrecy; proving a claim without showing it=zero knowledge proof
splitting a secret among people=secret sharing; making a key from a password=key derivation
""")
_THREATS = _table("""
a mail that tricks people into giving secrets=phishing; a phishing call by telephone=vishing; a phishing text message=smishing
phishing aimed at one person=spear phishing; phishing aimed at a chief=whaling; looking at a screen from behind=shoulder surfing
following someone through a door=tailgating; searching the trash for secrets=dumpster diving; lying to get help=pretexting
software that encrypts files for money=ransomware; software that watches the user=spyware; software that shows advertisements=adware
a program hidden in a useful one=trojan; a program that spreads by itself=worm; a group of infected machines=botnet
flooding a server with traffic=denial of service; a flaw unknown to the maker=zero day; an attacker from within=insider threat
guessing every password=brute force; a hidden way into a system=backdoor; recording of keys=keylogger
an attack through a supplier=supply chain attack; using a stolen session=session hijacking; a false sender address=spoofing
""")

# title: (relation, table). Titles share no word with the invented worlds.
GENERAL_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "World Capitals": ("capital", _CAPITALS),
    "World Currencies": ("currency", _CURRENCIES),
    "Chemical Symbols": ("symbol", _SYMBOLS),
    "Atomic Numbers": ("number", _NUMBERS),
    "Baby Animals": ("young", _YOUNG),
    "Word Opposites": ("opposite", _OPPOSITES),
    "Verb Forms": ("past", _PAST),
    "Simple Sums": ("result", _SUMS),
    "Times Tables": ("result", _PRODUCTS),
}
SECURITY_FIELDS: dict[str, tuple[str, dict[str, str]]] = {
    "Security Acronyms": ("stands_for", _ACRONYMS),
    "Network Ports": ("port", _PORTS),
    "Security Defenses": ("term", _DEFENCES),
    "Applied Cryptography": ("term", _CRYPTO),
    "Common Threats": ("term", _THREATS),
}
