"""The verbs as commands, on a real supervisor: what they do, print and refuse."""

import asyncio
import json
import re
import resource
import sys
from asyncio.subprocess import PIPE

import psutil

from supervisor.models import State
from tests.cli.conftest import Forktui
from tests.harness.programs import DONE, FAILED, USAGE
from tests.harness.supervisor_process import PATIENCE, Home, supervisor, until
from tests.harness.verified_guests import standby_source


async def test_the_verbs_do_what_they_say(embedded: Home, forktui: Forktui) -> None:
    async def done(*arguments: str) -> str:
        code, output, errors = await forktui(*arguments)
        assert (code, errors) == (DONE, "")
        return output

    async with supervisor(embedded) as running:
        assert (await done("create", "source", "--size", "64MB", "--cmd", "hot_mib=4")).split()[0] == "source"
        await running.client.wait("source", State.RUNNING, PATIENCE)
        made, paused = (await done("checkpoint", "source", "--name", "then")).splitlines()
        assert made == "then Standby"
        assert paused.startswith("source was paused for ")
        assert await done("delete", "then") == ""
        assert await done("standby", "source") == "source Standby\n"
        assert await done("fork", "source", "--name", "one") == "one Running\n"
        assert await done("fan-out", "source", "2", "--name-prefix", "many") == "many-1 Running\nmany-2 Running\n"
        (listed,) = [one for one in json.loads(await done("ls", "--json")) if one["name"] == "source"]
        assert (listed["fork_count"], listed["mem_locked"], listed["state"]) == (3, True, "Standby")
        assert listed["template"]["instance_id"] == listed["id"]
        assert listed["template"].keys() >= {"recorded_pages", "sampled_pages", "precision", "wasted_bytes"}
        assert [line.split()[0] for line in (await done("ls")).splitlines()] == [
            "NAME",
            "source",
            "one",
            "many-1",
            "many-2",
        ]
        assert "restored" in await done("logs", "one")
        code, output, errors = await forktui("restore", "source")
        assert (code, output) == (FAILED, "")
        assert "mem_locked by 3 share_memory forks (one, many-1, many-2)" in errors
        assert (await forktui("delete", "one", "many-1", "many-2"))[0] == DONE
        assert await done("restore", "source") == "source Running\n"
        assert await done("stop", "source") == "source Stopped\n"
        assert (await done("start", "source")).startswith("source ")
        assert await done("delete", "source") == ""


async def test_a_tree_is_deleted_after_a_look_at_what_would_go(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        assert (await forktui("create", "source", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        await running.client.wait("source", State.RUNNING, PATIENCE)
        assert (await forktui("standby", "source"))[0] == DONE
        assert (await forktui("fan-out", "source", "2"))[0] == DONE
        code, output, errors = await forktui("delete", "source", "--dry-run")
        assert (code, output) == (FAILED, "")
        assert "or give --cascade to delete the whole tree" in errors
        code, output, errors = await forktui("delete", "source", "--cascade", "--dry-run")
        assert (code, errors) == (DONE, "")
        lines = [line.split() for line in output.splitlines()]
        assert [line[0] for line in lines] == ["NAME", "source-1", "source-2", "source", "total"]
        assert lines[-1][1:3] == ["2", "running"]
        plan = json.loads((await forktui("delete", "source", "--cascade", "--dry-run", "--json"))[1])
        assert plan["disk_bytes"] == sum(one["disk_bytes"] for one in plan["deletions"]) > 4 << 20
        assert await forktui("delete", "source", "--cascade") == (DONE, "", "")
        assert json.loads((await forktui("ls", "--json"))[1]) == []


async def test_who_is_named_is_found_before_the_first_is_touched(embedded: Home, forktui: Forktui) -> None:
    """Once a name is free, the same word may be the beginning of another's id."""
    async with supervisor(embedded) as running:
        assert (await forktui("create", "victim", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        victim = await running.client.instance("victim")
        name = victim.id[:8]
        assert (await forktui("create", name, "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        named = await running.client.instance(name)
        # Two words for one are one, and do not come to mean another once it is gone.
        assert await forktui("delete", name, named.id, name) == (DONE, "", "")
        assert [one.id for one in await running.client.instances()] == [victim.id]
        await running.client.delete(victim.id)


async def test_where_one_is_not_found_nothing_is_done_to_the_others(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        for name in ("one", "two"):
            assert (await forktui("create", name, "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
            await running.client.wait(name, State.RUNNING, PATIENCE)
        before = await running.client.instances()
        for verb in ("standby", "restore", "start", "stop", "detach", "accept", "cancel", "delete"):
            code, output, errors = await forktui(verb, "one", "no-such-vm", "two")
            assert (code, output, errors.count("\n")) == (FAILED, "", 1 if verb != "cancel" else 3)
            assert "no-such-vm: no instance has this id, name" in errors
        assert await running.client.instances() == before
        assert (await forktui("delete", "one", "two"))[0] == DONE


async def test_a_source_that_was_deleted_is_no_raw_id(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        source = await standby_source(running.client, "source", "hot_mib=1")
        assert (await forktui("fork", "source", "--no-share-memory", "--name", "copy"))[0] == DONE
        assert (await forktui("delete", "source"))[0] == DONE
        (row,) = [line for line in (await forktui("ls"))[1].splitlines() if line.startswith("copy")]
        assert f"(deleted) {source.id[:8]} " in row
        assert source.id not in row
        await running.client.delete("copy")


async def test_a_name_in_the_shape_of_an_id_is_a_mistake(forktui: Forktui) -> None:
    """Also where no supervisor listens: nothing is asked."""
    name = "a" + "1" * 23
    for command in (
        ("create", name),
        ("fork", "source", "--name", name),
        ("checkpoint", "source", "--name", name),
        ("fan-out", "source", "2", "--name-prefix", name),
    ):
        code, output, errors = await forktui(*command)
        assert (code, output, errors.count("\n")) == (USAGE, "", 1)
        assert f"'{name}' is refused: it has the shape of an id" in errors


async def test_several_instances_are_one_json_array_and_one_is_an_object(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        for name in ("one", "two"):
            assert (await forktui("create", name, "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
            await running.client.wait(name, State.RUNNING, PATIENCE)
        code, output, errors = await forktui("standby", "one", "two", "--json")
        assert (code, errors) == (DONE, "")
        assert [(made["name"], made["state"]) for made in json.loads(output)] == [
            ("one", "Standby"),
            ("two", "Standby"),
        ]
        assert json.loads((await forktui("restore", "one", "--json"))[1])["name"] == "one"
        plans = json.loads((await forktui("delete", "one", "two", "--dry-run", "--json"))[1])
        assert [plan["deletions"][0]["name"] for plan in plans] == ["one", "two"]
        assert (await forktui("restore", "no", "none", "--json"))[:2] == (FAILED, "[]\n")
        assert await forktui("delete", "one", "two", "--json") == (DONE, "", "")


async def test_a_dry_run_of_what_does_not_fit_says_what_would(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        assert (await forktui("create", "source", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        await running.client.wait("source", State.RUNNING, PATIENCE)
        assert (await forktui("standby", "source"))[0] == DONE
        # A real limit on the real process: room for some forks, and for the requests of this test.
        limit = psutil.Process(running.process.pid).num_fds() + 40
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (limit, 20000))
        code, output, errors = await forktui("fan-out", "source", "50", "--dry-run")
        assert code == FAILED
        assert "RESOURCE" in output
        refusal = r"forktui: source: a fan-out of 50 does not fit: up to (\d+) \(descriptors\); "
        found = re.fullmatch(refusal + r"ask for at most \1, or give --force\n", errors)
        assert found, errors
        assert (await forktui("fan-out", "source", found[1], "--dry-run"))[::2] == (DONE, "")
        assert (await forktui("fan-out", "source", "50", "--dry-run", "--force"))[::2] == (DONE, "")
        assert (await forktui("delete", "source"))[0] == DONE


async def test_what_the_supervisor_refuses_is_one_line_and_exit_1(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        (embedded.data / "images" / "broken").mkdir(parents=True)
        (embedded.data / "images" / "broken" / "vm.json").write_text("{")
        assert (await forktui("create", "x", "--size", "64MB", "--cmd", "hot_mib=4"))[0] == DONE
        await running.client.wait("x", State.RUNNING, PATIENCE)
        for arguments, said in (
            (("create", "y", "--image", "no-such-image"), "no-such-image"),
            (("create", "y", "--image", "broken"), "image broken: "),
            (("create", "y", "--size", "1000TB"), "size 1000TB is refused"),
            (("create", "y", "--size", "heavy"), "size 'heavy' is refused"),
            (("create", "x"), "x"),
            (("fork", "x"), "x: fork refused"),
            (("fork", "x", "--no-share-memory"), "or give --from-running for a copy"),
            (
                ("logs", "no-such-vm"),
                "no-such-vm: no instance has this id, name or unique id prefix; `forktui ls` lists",
            ),
        ):
            code, output, errors = await forktui(*arguments)
            assert (code, output) == (FAILED, ""), arguments
            assert errors.startswith("forktui: ")
            assert errors.count("\n") == 1
            assert said in errors
        assert (await forktui("delete", "x"))[0] == DONE
        assert json.loads((await forktui("ls", "--json"))[1]) == []


async def test_a_fan_out_is_cancelled_by_its_source_or_its_id(embedded: Home, forktui: Forktui) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=1")
        nothing = "forktui: source: nothing is under way on it; `forktui ls` shows what is\n"
        assert await forktui("cancel", "source") == (FAILED, "", nothing)
        for by_id in (False, True):
            command = (
                "-m",
                "forktui",
                "fan-out",
                "source",
                "400",
                "--concurrency",
                "1",
                "--socket",
                str(embedded.socket),
            )
            making = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, stderr=PIPE)
            host = await until(lambda host: any(one.busy == "fan-out" for one in host.instances), client)
            (source,) = [one for one in host.instances if one.name == "source"]
            assert source.operation is not None
            assert "(fan-out: " in (await forktui("ls"))[1]
            code, output, errors = await forktui("cancel", source.operation.id if by_id else "source", "--delete-made")
            assert (code, errors) == (DONE, "")
            assert output == "source: fan-out cancelled, 0 of 400 forks\n"
            made, unmade = await making.communicate()
            assert (making.returncode, made) == (FAILED, b"")
            assert unmade.startswith(b"forktui: 400 forks not made: ")
            assert unmade.count(b"\n") == 1
        await client.delete("source")
