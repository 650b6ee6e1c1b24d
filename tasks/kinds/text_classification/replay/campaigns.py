"""Synthetic campaigns, unseen in this corpus: mail on later topics, generated from templates.

Each message samples its sentences, names, numbers, links and length, so no two are copies. A filter of 2002 classifies some
as spam, is uncertain about some, and classifies others, written like the mail of a list or of a colleague, as ham with high
confidence: scores alone do not detect those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_SLOT = re.compile(r"\{(\w+)\}")

SLOTS: dict[str, Sequence[str]] = {
    "coin": ["Bitcoin", "Ethereum", "Solana", "USDT", "Dogecoin", "Litecoin"],
    "name": ["Lena", "Amir", "Chloe", "Mateo", "Priya", "Jonas", "Wei", "Fatima", "Oskar", "Ines"],
    "site": ["wallet-verify", "parcel-hub", "stream-renew", "claims-desk", "secure-portal", "fast-login"],
    "city": ["Leeds", "Utrecht", "Graz", "Porto", "Malmo", "Tampere", "Cork"],
    "day": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"],
    "service": ["kubelet", "sidecar", "ingress", "scheduler", "autoscaler", "webhook"],
    "dish": ["lentil curry", "flatbread", "beetroot salad", "paella", "dumplings", "apple cake"],
}


@dataclass(frozen=True)
class Campaign:
    name: str
    subjects: Sequence[str]
    openings: Sequence[str]
    sentences: Sequence[str]
    closings: Sequence[str]
    shortest: int
    """Minimum number of sentences."""
    longest: int


CAMPAIGNS = (
    Campaign(
        "wallet",
        [
            "Your {coin} wallet needs verification",
            "{coin} withdrawal of {number} on hold",
            "Action required: {coin} seed phrase",
        ],
        ["Dear customer,", "Hello {name},", "Dear {name},"],
        [
            "Your {coin} wallet was suspended after a login from {city}.",
            "Verify your seed phrase within {small} hours or your {coin} balance will be frozen.",
            "Scan the QR code to restore two-factor authentication for account {number}.",
            "A transfer of {small}.{number} {coin} is waiting for your confirmation at https://{site}{small}.example/{number}.",
            "Our blockchain compliance team noticed unusual staking activity.",
            "Restore access here: https://{site}.example/restore?id={number}",
        ],
        ["Blockchain Support Desk", "The {coin} Security Team", "Wallet Care {number}"],
        3,
        6,
    ),
    Campaign(
        "parcel",
        ["Parcel {number} could not be delivered", "Delivery fee for tracking {number}", "Your package waits in {city}"],
        ["Hi,", "Hello {name},", "Good morning,"],
        [
            "The courier could not deliver your parcel {number} to the locker in {city}.",
            "A customs charge of {small} euro is outstanding.",
            "Reschedule in the app before {day}: http://{site}.example/p/{number}",
            "Without an answer the parcel goes back to the sender after {small} days.",
            "Download the delivery app by the link below to choose a new slot.",
        ],
        ["Parcel service {city}", "Your courier", "Tracking team"],
        2,
        5,
    ),
    Campaign(
        "streaming",
        [
            "Your streaming subscription has expired",
            "{name}, your playlist will be deleted",
            "Payment for subscription {number} failed",
        ],
        ["Hey {name},", "Hello,", "Dear subscriber,"],
        [
            "We could not renew your streaming subscription with card ending {small}.",
            "Update the payment in the app to keep your playlists and downloads.",
            "As a loyal viewer you may extend for {small} months, see https://{site}.example/renew/{number}.",
            "Your smartphone and {small} other devices will be signed out on {day}.",
            "Episodes that you downloaded will be removed.",
        ],
        ["The streaming team", "Subscriber care", "Team {city}"],
        2,
        6,
    ),
    Campaign(
        "cluster",  # a technical list on later technology: confidently ham by its score
        [
            "Re: [{service}] pod restarts after upgrade",
            "Re: {service} patch {number}",
            "[{service}] flaky test in release {small}",
        ],
        ["On {day}, {name} wrote:", "Hi {name},", "> does the {service} restart with the old manifest?"],
        [
            "I think the {service} reads the stale config map, try to restart it and look at the log.",
            "The patch for the {service} does not apply to my tree, line {number} has moved.",
            "It works here with version {small}.{small}, but the container of {name} still segfaults.",
            "> could someone with root on the {city} node check whether the {service} is running?",
            "I'd rather fix the yaml parser than add another workaround to the {service}.",
            "See the thread of {day} for the stack trace that I got from the kernel.",
        ],
        ["{name}", "Cheers, {name}", "-- {name}"],
        3,
        7,
    ),
    Campaign(
        "invoice",  # a request for money in a colleague's style: ham by its words
        ["Re: the meeting on {day}", "Re: notes for {name}", "Quick question, {name}"],
        ["Hi {name},", "{name},", "Morning {name},"],
        [
            "I'm in the meeting with {name} until {day}, so I can't talk on the phone.",
            "I thought you had sorted the thing for {city} already, but {name} says that you haven't.",
            "Could you have a look at the numbers that {name} wrote on {day}?",
            "I don't know whether the old account still works, I think it was {number}.",
            "Let me know when it's done and I'll tell {name}.",
            "Sorry to bother you with this, it should have been done last week.",
        ],
        ["Thanks, {name}", "{name}", "Talk later, {name}"],
        2,
        5,
    ),
    Campaign(
        "supper",  # a neighbourhood newsletter: new, but not spam
        ["Street supper in {city}", "Recipes for {day}", "Who brings the {dish}?"],
        ["Dear neighbours,", "Hello {name} and all,", "Hi everyone,"],
        [
            "{name} will bring {dish} for about {small} people, and we still need someone for the {dish}.",
            "We meet on {day} at {small} by the old bakery in {city}; children are welcome.",
            "The recipe for {dish} needs {small} onions, thyme, olive oil and patience.",
            "Please tell {name} whether you eat meat, so that nobody stays hungry.",
            "If it rains we go to the barn, {name} has the key.",
        ],
        ["See you, {name}", "Warmly, {name}", "{name} from number {small}"],
        3,
        8,
    ),
)


def message(campaign: Campaign, rng: np.random.Generator) -> str:
    """One message: subject, newline, text."""
    count = int(rng.integers(campaign.shortest, campaign.longest + 1))
    lines = [
        _pick(campaign.openings, rng),
        *(_pick(campaign.sentences, rng) for _ in range(count)),
        _pick(campaign.closings, rng),
    ]
    text = "\n".join([_pick(campaign.subjects, rng), "", *lines])
    return _SLOT.sub(lambda slot: _fill(slot[1], rng), text)


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _fill(slot: str, rng: np.random.Generator) -> str:
    if slot == "number":
        return str(rng.integers(1000, 999999))
    if slot == "small":
        return str(rng.integers(2, 60))
    return _pick(SLOTS[slot], rng)
