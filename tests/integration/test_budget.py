"""Money: never more than the budget, by the pool and by the daemon, whatever is cut and whenever it is killed."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from rlmd.config import BudgetSettings, HostSettings, ModelSettings, PriceSettings, Settings
from rlmd.engine.confirming import described
from rlmd.errors import CompletionCut, NoHost, RlmdError
from rlmd.events import Estimate
from rlmd.pool import CompletionRequest, Pool
from rlmd.pool.ledger import Ledger
from rlmd.pool.prices import NANO
from rlmd.providers.base import Message, Sampling
from tests.conftest import StartDaemon
from tests.fakes.ollama import FakeOllama, Scripted, Seen
from tests.fakes.openai import FakeOpenAI
from tests.harness import Folders, load_text, new_run, start_run
from tests.shell import rlmctl

#: Dollars a million tokens; a token of the fake costs as much in nano.
PRICE = PriceSettings(prompt=1000.0, completion=2000.0)
#: A byte, two, three and four bytes a character, and what is no character.
ALPHABETS = ("plain words ", "üßéñ ", "漢字かな ", "🙂🦊 ", "\udce9\udcff")
SAMPLING = Sampling(max_tokens=32)


def paid(fake: FakeOllama, **more: Any) -> HostSettings:
    models = {"sub": ModelSettings(price=PRICE)}
    return HostSettings(url=fake.url, provider="ollama", trust="cloud", slots=fake.slots, models=models, **more)


@asynccontextmanager
async def spending(hosts: dict[str, HostSettings], budget: BudgetSettings, file: Path) -> AsyncIterator[Pool]:
    settings = Settings(hosts=hosts, budget=budget)
    pool = Pool(settings, ledger_file=file, environment={}, default_url=None)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


def ask(prompt: str, run: str = "run") -> CompletionRequest:
    return CompletionRequest("sub", (Message("user", prompt),), SAMPLING, run, batch=True)


def charged(fake: FakeOllama, seen: Seen) -> int:
    """Nano that an honest provider charges: what it read, and what it wrote before whatever happened."""
    written = 0 if seen.outcome == "failed" else 32
    return fake.tokens(seen) * 1000 * 1000 + written * 2000 * 1000


def billed(fake: FakeOllama) -> int:
    """Nano that a provider bills whose replies are all of 30 tokens, broken off or not: what may be reserved and not a
    nano less, so that one attempt that is forgotten shows. Not what it still works on."""
    return sum(30 * 2000 * 1000 for seen in fake.seen if seen.outcome != "held")


FAULTS: tuple[Any, ...] = (None, None, None, None, "cut", "error_line")


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(900)])])
async def test_many_at_once_against_a_budget_for_a_tenth_of_them(tmp_path: Path, count: int) -> None:
    prompts = [f"{number} {ALPHABETS[number % 5] * (1 + number % 9)}" for number in range(count)]
    faults = {3: "cut", 7: "reset", 11: "garbage", 13: "error_line"}

    def reply(prompt: str) -> Scripted:
        number = int(prompt.split()[0])
        return Scripted("word" * 8, fault=faults.get(number % 17), after=9)  # type: ignore[arg-type]

    async with FakeOllama(["sub"], slots=16, bytes_per_token=1.0) as fake:
        fake.answer = reply
        worst = sum((len(p.encode("utf-8", "replace")) + 8) * 1000 * 1000 + 32 * 2000 * 1000 for p in prompts)
        limit = worst / 10 / NANO
        budget = BudgetSettings(day=limit, overflow_after=0)
        async with spending({"cloud": paid(fake)}, budget, tmp_path / "ledger") as pool:
            while pool.hosts()[0].state != "ok":  # else a busy machine gives up on a host that was never seen
                await asyncio.sleep(0.01)
            got = await asyncio.gather(*(pool.complete(ask(p)) for p in prompts), return_exceptions=True)
            day = next(account for account in pool.accounts() if account.name == "day")
    answered = [one for one in got if not isinstance(one, BaseException)]
    faulty = [number % 17 in faults for number in range(count)]
    refused = [one for one, bad in zip(got, faulty, strict=True) if isinstance(one, NoHost) and not bad]
    assert answered
    assert refused
    assert {one.message for one in refused if "budget does not allow it" not in one.message} == set()
    assert day.reserved == 0
    assert day.spent <= limit, "never more than the budget"
    assert sum(charged(fake, seen) for seen in fake.seen) <= day.spent * NANO + 1, "and never more than is written down"
    assert day.spent >= 0.7 * limit, "and it is used"
    with closing(sqlite3.connect(tmp_path / "ledger")) as database:
        (kept, open_) = database.execute("SELECT sum(spent), count(*) - count(spent) FROM attempts").fetchone()
    assert (kept, open_) == (round(day.spent * NANO), 0)


async def test_a_provider_that_writes_on_is_cut_off_where_the_reservation_ends(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        fake.answer = lambda _: Scripted("word" * 1000, chunk=4, pause=0.001)
        async with spending({"cloud": paid(fake)}, BudgetSettings(day=5), tmp_path / "ledger") as pool:
            with pytest.raises(CompletionCut, match="more than the 32 tokens"):
                await pool.complete(ask("q"))
            await fake.until(lambda: fake.aborted == 1)
            assert pool.accounts()[0].spent == pytest.approx((1 + 8 + 64) / 1000), "all that was reserved"
            with pytest.raises(NoHost):
                await pool.complete(ask("another"))
            assert len(fake.seen) == 1, "it is not asked again: each time would cost"


async def test_what_a_reply_cost_above_its_reservation_is_written_down_and_reserved_the_next_time(
    tmp_path: Path,
) -> None:
    async with FakeOllama(["sub"]) as fake:
        fake.answer = lambda _: Scripted("word" * 64, chunk=16)  # 64 tokens in 16 pieces
        async with spending({"cloud": paid(fake)}, BudgetSettings(day=0.3), tmp_path / "ledger") as pool:
            first = (await pool.complete(ask("q"))).record.money
            assert first == pytest.approx(pool.accounts()[0].spent)
            assert first > 0.128
            fake.answer = lambda _: Scripted("x", fault="hang")
            task = asyncio.create_task(pool.complete(ask("another")))
            await fake.until(lambda: fake.serving == 1)
            assert pool.accounts()[0].reserved > 0.128
            task.cancel()
            await asyncio.wait([task])


async def test_at_the_end_of_the_budget_the_local_host_answers_the_rest(tmp_path: Path) -> None:
    async with FakeOllama(["sub"], slots=4) as cloud, FakeOllama(["sub"], latency=0.01) as local:
        hosts = {"cloud": paid(cloud), "local": HostSettings(url=local.url, provider="ollama", watts=200)}
        async with spending(hosts, BudgetSettings(day=0.5, overflow_after=0), tmp_path / "ledger") as pool:
            got = await asyncio.gather(*(pool.complete(ask(f"p{number}")) for number in range(40)))
            used = {one.record.host for one in got}
            assert used == {"cloud", "local"}
            assert all(one.record.money > 0 for one in got if one.record.host == "cloud")
            assert all(one.record.money == 0 < one.record.energy for one in got if one.record.host == "local")
            assert all(account.spent <= 0.5 for account in pool.accounts())


async def test_when_the_cloud_is_down_the_local_host_answers_and_nothing_is_spent(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as cloud, FakeOllama(["sub"]) as local:
        hosts = {"cloud": paid(cloud), "local": HostSettings(url=local.url, provider="ollama")}
        async with spending(hosts, BudgetSettings(day=5, overflow_after=0), tmp_path / "ledger") as pool:
            await cloud.die()
            got = await asyncio.gather(*(pool.complete(ask(f"p{number}")) for number in range(10)))
            assert {one.record.host for one in got} == {"local"}
            assert [account.spent for account in pool.accounts()] == [0, 0]


@pytest.mark.parametrize(("status", "said"), [(402, "Insufficient Balance"), (401, "Authentication Fails"), (503, "x")])
async def test_what_deepseek_refuses_the_local_host_answers(tmp_path: Path, status: int, said: str) -> None:
    """No balance, a wrong key, too much to do: nothing is lost, and a refusal costs nothing."""
    async with FakeOpenAI(["deepseek-flash"], dialect="deepseek", slots=4) as deepseek, FakeOllama(["sub"]) as local:
        deepseek.answer = lambda _: Scripted(said, status=status)
        models = {"deepseek-flash": ModelSettings(price=PRICE)}
        hosts = {
            "deepseek": HostSettings(url=deepseek.url, provider="openai", trust="cloud", slots=4, models=models),
            "local": HostSettings(url=local.url, provider="ollama"),
        }
        async with spending(hosts, BudgetSettings(day=5, overflow_after=0), tmp_path / "ledger") as pool:
            got = await asyncio.gather(*(pool.complete(ask(f"p{number}")) for number in range(20)))
            assert {one.record.host for one in got} == {"local"}
            assert 0 < len(deepseek.seen) < 10, "it was tried, and not for each"
            assert [(account.spent, account.reserved) for account in pool.accounts()] == [(0, 0), (0, 0)]


async def test_a_cloud_model_of_unknown_price_is_not_used_where_there_is_a_budget(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        host = HostSettings(url=fake.url, provider="ollama", trust="cloud")
        async with spending({"cloud": host}, BudgetSettings(month=5), tmp_path / "ledger") as pool:
            with pytest.raises(NoHost, match="nobody knows what a candidate for sub costs"):
                await pool.complete(ask("q"))
        async with spending({"cloud": host}, BudgetSettings(), tmp_path / "ledger") as pool:
            assert (await pool.complete(ask("q"))).record.money == 0


async def test_a_cloud_model_of_unknown_price_is_not_used_before_a_run_may_spend(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        host = HostSettings(url=fake.url, provider="ollama", trust="cloud")
        async with spending({"cloud": host}, BudgetSettings(ask=True), tmp_path / "ledger") as pool:
            pool.allow_spending("allowed")
            with pytest.raises(NoHost, match="nobody knows what a candidate for sub costs"):
                await pool.complete(ask("q"))
            assert not fake.seen
            assert (await pool.complete(ask("q", run="allowed"))).completion.text
        (tmp_path / "ledger").write_bytes(b"this is no database" * 500)
        async with spending({"cloud": host}, BudgetSettings(), tmp_path / "ledger") as pool:
            with pytest.raises(NoHost):
                await pool.complete(ask("another"))


async def test_a_cancelled_request_costs_what_was_reserved(tmp_path: Path) -> None:
    async with FakeOllama(["sub"]) as fake:
        fake.answer = lambda _: Scripted("x", fault="hang")
        async with spending({"cloud": paid(fake)}, BudgetSettings(day=5), tmp_path / "ledger") as pool:
            task = asyncio.create_task(pool.complete(ask("q")))
            await fake.until(lambda: fake.serving == 1)
            day = pool.accounts()[0]
            assert (day.spent, day.reserved > 0) == (0, True)
            task.cancel()
            await asyncio.wait([task])
            await fake.until(lambda: fake.aborted == 1)
            while pool.accounts()[0].reserved:
                await asyncio.sleep(0)
            assert pool.accounts()[0].spent == day.reserved


async def test_what_cannot_be_written_down_is_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: nothing goes to a host that costs money, and one that costs none does the work."""
    monkeypatch.setattr(Ledger, "_write", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("disk is full")))
    async with FakeOllama(["sub"]) as cloud, FakeOllama(["sub"]) as local:
        async with spending({"cloud": paid(cloud)}, BudgetSettings(day=5), tmp_path / "ledger") as pool:
            with pytest.raises(RlmdError):
                await pool.complete(ask("q"))
            assert pool.accounts()[0].reserved == pool.accounts()[0].spent == 0
        hosts = {"cloud": paid(cloud), "local": HostSettings(url=local.url, provider="ollama")}
        async with spending(hosts, BudgetSettings(day=5, overflow_after=0), tmp_path / "ledger") as pool:
            got = await asyncio.gather(*(pool.complete(ask(f"p{number}")) for number in range(6)))
            assert {one.record.host for one in got} == {"local"}
        assert not cloud.seen


async def test_a_damaged_ledger_is_set_aside_and_nothing_is_spent(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_bytes(b"this is no database" * 500)
    async with FakeOllama(["sub"]) as fake:
        async with spending({"cloud": paid(fake)}, BudgetSettings(day=5), tmp_path / "ledger") as pool:
            with pytest.raises(NoHost, match="ledger was damaged"):
                await pool.complete(ask("q"))
        (aside,) = tmp_path.glob("ledger.damaged-*")
        aside.unlink()
        async with spending({"cloud": paid(fake)}, BudgetSettings(day=5), tmp_path / "ledger") as pool:
            assert (await pool.complete(ask("q"))).record.money > 0


def config_of_a_cloud(fake: FakeOllama, more: str = "") -> str:
    return f"""
[hosts.cloud]
url = "{fake.url}"
provider = "ollama"
trust = "cloud"
slots = 4
[hosts.cloud.models.sub]
price = {{ prompt = 1000, completion = 2000 }}
[budget]
day = 500
{more}
"""


async def test_kill_9_in_the_middle_loses_no_spending_record(folders: Folders, start_daemon: StartDaemon) -> None:
    async with FakeOllama(["sub"], slots=4) as fake:
        folders.write_config(config_of_a_cloud(fake))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "a short text")
            first = await start_run(client, new_run("What is it?", "note", strategy="direct"))
            assert first["receipt"]["money"] > 0
            before = {one["name"]: one for one in (await client.call("budget/show"))["accounts"]}
            assert before["day"]["spent"] == pytest.approx(first["receipt"]["money"])
            fake.answer = lambda _: Scripted("x", fault="hang")
            for number in range(3):
                await client.call("run/start", new_run(f"Again, {number}?", "note", strategy="direct"))
            await fake.until(lambda: fake.serving == 3)
            held = {one["name"]: one for one in (await client.call("budget/show"))["accounts"]}
            assert held["day"]["reserved"] > 0
        await daemon.kill()
        daemon = await start_daemon()
        async with daemon.connect() as client:
            after = {one["name"]: one for one in (await client.call("budget/show"))["accounts"]}
            assert after["day"]["spent"] == pytest.approx(held["day"]["spent"] + held["day"]["reserved"])
            assert after["month"]["spent"] == pytest.approx(after["day"]["spent"])


@pytest.mark.parametrize(
    "kills",
    [pytest.param(3, id="some"), pytest.param(60, marks=[pytest.mark.full, pytest.mark.timeout(1800)], id="many")],
)
async def test_whenever_it_is_killed_the_ledger_has_what_the_provider_charges(
    folders: Folders, start_daemon: StartDaemon, kills: int
) -> None:
    """Runs go on all the time, some of what they are sent is cut, and what was interrupted is taken up by the next
    daemon. The provider charges what it read and wrote, and never knows of any kill."""
    chance = random.Random(kills)
    async with FakeOllama(["sub"], slots=4, bytes_per_token=1.0, latency=lambda _: chance.uniform(0, 0.05)) as fake:
        fake.answer = lambda _: Scripted("word " * 6, chunk=5, pause=0.005, fault=chance.choice(FAULTS), after=30)
        config = config_of_a_cloud(fake).replace("prompt = 1000", "prompt = 0")
        folders.write_config(config.replace("[budget]", "max_tokens = 30\n[budget]"))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "a short text")
        before = 0.0
        for number in range(kills):
            async with daemon.connect() as client:
                asked = len(fake.seen) + chance.randrange(1, 12)
                for more in range(6):
                    await client.call("run/start", new_run(f"What, {number} {more}?", "note", strategy="direct"))
                await fake.until(lambda asked=asked: len(fake.seen) >= asked)
                await asyncio.sleep(chance.uniform(0, 0.05))
            await daemon.kill()
            daemon = await start_daemon()
            async with daemon.connect() as client:
                day = next(one for one in (await client.call("budget/show"))["accounts"] if one["name"] == "day")
            assert day["spent"] >= before, "nothing that was spent is forgotten"
            before = day["spent"]
            assert (day["spent"] + day["reserved"]) * NANO + 1 >= billed(fake), number
        fake.answer = lambda _: "word " * 6
        async with daemon.connect() as client:
            while day["reserved"]:  # a run that took too many daemons along is left as it is
                day = next(one for one in (await client.call("budget/show"))["accounts"] if one["name"] == "day")
            bill = billed(fake)
            day = next(one for one in (await client.call("budget/show"))["accounts"] if one["name"] == "day")
        assert day["limit"] >= day["spent"] + day["reserved"] > 0
        assert (day["spent"] + day["reserved"]) * NANO + 1 >= bill


async def test_ask_spends_for_a_run_only_after_it_was_allowed(folders: Folders, start_daemon: StartDaemon) -> None:
    async with FakeOllama(["sub"], slots=4) as fake:
        folders.write_config(config_of_a_cloud(fake, "ask = true"))
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "note", "a short text")
            run = new_run("What is it?", "note", strategy="direct")
            ended = await start_run(client, run)
            assert "nobody has said that this run may spend" in ended["why"]
            assert not fake.seen
            shown = await client.call("budget/allow", {"run_id": run["run_id"]})
            assert [one["name"] for one in shown["accounts"]] == ["day", "month", "run"]


async def test_what_energy_costs_is_told_and_no_limit_counts_it(folders: Folders, start_daemon: StartDaemon) -> None:
    """Another price holds from a reload on; without one there are watt-hours alone."""

    def write_config(budget: str) -> None:
        folders.write_config(
            f'[hosts.box]\nurl = "{model.url}"\nprovider = "ollama"\nwatts = 1e7\n'
            f"[hosts.box.models.root]\n[budget]\nday = 0\n{budget}"
        )

    async with FakeOllama(["root"]) as model:
        model.answer = lambda _: Scripted("In the cellar.", latency=0.05)
        write_config("price_per_kwh = 0.5\n")
        daemon = await start_daemon()
        async with daemon.connect() as client:
            await load_text(client, "text", "The boiler stands in the cellar.")

            async def receipt(question: str) -> Any:
                run = new_run(question, "text", strategy="direct")
                await client.call("run/start", run)
                return (await client.ended_run(run["run_id"]))["receipt"]

            priced = await receipt("Where is the boiler?")
            assert priced["energy_cost"] == pytest.approx(priced["energy"] / 2000)
            assert priced["energy_cost"] == pytest.approx(priced["models"][0]["energy_cost"])
            assert priced["energy_cost"] > 0
            assert re.search(r"Wh \(\$[\d.]+\)", priced["summary"])
            assert priced["money"] == 0
            assert [one["spent"] for one in (await client.call("budget/show"))["accounts"]] == [0, 0]
            (host,) = (await client.call("host/list"))["hosts"]
            assert host["meter"]["energy_cost"] == pytest.approx(priced["energy_cost"])
            top = await rlmctl(folders.environment(), "top", "--once")
            assert f"{priced['energy_cost']:.4f}" in top.out

            write_config("")
            assert (await client.call("daemon/reload"))["applied"] == ["budget.price_per_kwh"]
            unpriced = await receipt("And where is it not?")
            assert unpriced["energy"] > 0 == unpriced["energy_cost"]
            assert "$" not in unpriced["summary"]


async def test_an_estimate_says_what_its_energy_costs(tmp_path: Path) -> None:
    async with FakeOllama(["sub"], latency=0.01) as local:
        hosts = {"local": HostSettings(url=local.url, provider="ollama", watts=1e6)}
        async with spending(hosts, BudgetSettings(price_per_kwh=0.5), tmp_path / "ledger") as pool:
            await pool.complete(ask("its speed is known now"))
            found = pool.expect("sub", 100, 100_000, private=False, narrowed_to=None)
    assert found.energy_cost == pytest.approx(found.energy / 2000)
    assert found.energy_cost > 0
    said = described(Estimate(requests=100, chars=0, energy=250_000, energy_cost=125.0))
    assert said.endswith("250.0 kWh ($125.00)")
    assert described(Estimate(requests=100, chars=0, energy=250_000)).endswith("250.0 kWh")
