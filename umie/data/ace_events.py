"""Event types and roles of ACE: M2E2, the mapping of SWiG and ACE itself spell them in three ways."""

from __future__ import annotations

from umie.errors import UmieError, shown


def event_type(name: str) -> str:
    """Return the paper's name of an event type.

    'Justice:Arrest-Jail' and 'Justice||Arrest|Jail' become 'arrest jail'; 'Transaction:Transfer-Money' becomes
    'transfer'.

    Raises:
        UmieError: the name is empty.
    """
    label = name.replace("||", ":").replace("|", "-").rpartition(":")[2].replace("-", " ").lower().strip()
    if not label:
        raise UmieError(f"event type is {shown(name)}: expected a name such as 'Justice:Arrest-Jail'")
    return "transfer" if label == "transfer money" else label


M2E2_EVENT_TYPES = (
    "arrest jail", "meet", "attack", "transport", "demonstrate", "phone write", "die", "transfer",
)  # fmt: skip
M2E2_ROLES = (
    "Agent", "Person", "Place", "Instrument", "Attacker", "Target", "Victim", "Entity", "Police", "Artifact",
    "Vehicle", "Destination", "Origin", "Giver", "Recipient", "Money",
)  # fmt: skip
M2E2_SCHEMA = {"med": M2E2_EVENT_TYPES, "meae": M2E2_ROLES}
