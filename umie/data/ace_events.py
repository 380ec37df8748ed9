"""Names of ACE: event types as UMIE calls them, which M2E2, SWiG's mapping and ACE itself spell in three ways."""

from __future__ import annotations

from umie.errors import UmieError, shown


def event_type(name: str) -> str:
    """Return what the paper calls an event type.

    'Justice:Arrest-Jail' and 'Justice||Arrest|Jail' are 'arrest jail'; 'Transaction:Transfer-Money' is 'transfer'.

    Raises:
        UmieError: nothing is left of the name.
    """
    label = name.replace("||", ":").replace("|", "-").rpartition(":")[2].replace("-", " ").lower().strip()
    if not label:
        raise UmieError(f"event type is {shown(name)}: expected one such as 'Justice:Arrest-Jail'")
    return "transfer" if label == "transfer money" else label


M2E2_EVENT_TYPES = (
    "arrest jail", "meet", "attack", "transport", "demonstrate", "phone write", "die", "transfer",
)  # fmt: skip
M2E2_ROLES = (
    "Agent", "Person", "Place", "Instrument", "Attacker", "Target", "Victim", "Entity", "Police", "Artifact",
    "Vehicle", "Destination", "Origin", "Giver", "Recipient", "Money",
)  # fmt: skip
M2E2_SCHEMA = {"med": M2E2_EVENT_TYPES, "meae": M2E2_ROLES}
