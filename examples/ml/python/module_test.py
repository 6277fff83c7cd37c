#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""verbena_ml on NumPy arrays, memoryviews and DLPack capsules; its stubs; both examples."""

import array
import ast
import asyncio
import gc
import os
import re
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import numpy  # noqa: E402
import verbena_ml  # noqa: E402

LAUNCH = os.path.join(HERE, "..", "launch")
PATIENCE = 50


def on_ranks(size, what, **options):
    """Runs `what` on each rank, in threads: calls give up the GIL, or this would hang."""
    results, failures = [None] * size, []

    def run(rank, board):
        try:
            with verbena_ml.Group(rank, size, board, **options) as group:
                results[rank] = what(group)
        except BaseException as failure:  # pylint: disable=broad-except
            failures.append(failure)
    with tempfile.TemporaryDirectory() as folder:
        threads = [threading.Thread(target=run, args=(rank, "folder:" + folder))
                   for rank in range(size)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(PATIENCE)
    if failures:
        raise failures[0]
    return results


class CollectivesTest(unittest.TestCase):
    def test_numpy_in_place_and_apart(self):
        def reduce(group):
            for dtype in (numpy.float32, numpy.float16, numpy.float64, numpy.int32, numpy.int64):
                for shape in ((3,), (0,), (), (77, 1001)):
                    tensor = numpy.full(shape, group.rank + 1, dtype)
                    out = numpy.zeros(shape, dtype)
                    self.assertIs(group.all_reduce(tensor, out), out)
                    self.assertTrue((out == 6).all())
                    self.assertIs(group.all_reduce(tensor), tensor)
                    self.assertTrue((tensor == 6).all())
        on_ranks(3, reduce)

    def test_bfloat16_has_no_name_in_numpy(self):
        def reduce(group):
            one = numpy.full(100, 0x3f80, numpy.uint16)
            with self.assertRaisesRegex(verbena_ml.InvalidArgument, "bfloat16"):
                group.all_reduce(one)
            group.all_reduce(one, dtype="bfloat16")
            self.assertTrue((one == 0x4000).all())
        on_ranks(2, reduce)

    def test_all_gather_barrier_memoryview_and_array(self):
        def gather(group):
            out = array.array("f", [0.0] * 6)
            group.all_gather(memoryview(array.array("f", [group.rank, 1, 2])), out)
            self.assertEqual(list(out), [0, 1, 2, 1, 1, 2])
            group.barrier()
        on_ranks(2, gather)

    def test_dlpack_capsules(self):
        def reduce(group):
            tensor = numpy.full((4, 5), group.rank + 1, numpy.float32)
            group.all_reduce(tensor.__dlpack__())
            self.assertTrue((tensor == 3).all())
            used = tensor.__dlpack__()
            group.all_reduce(used)
            with self.assertRaisesRegex(verbena_ml.InvalidArgument, "used before"):
                group.all_reduce(used)

            class OnlyDlpack:
                def __dlpack__(self):
                    return tensor.__dlpack__()
            group.all_reduce(OnlyDlpack())
            self.assertTrue((tensor == 12).all())
        on_ranks(2, reduce)

    def test_nothing_is_copied(self):
        def reduce(group):
            tensor = numpy.ones(1 << 20, numpy.float32)
            with group.register(tensor) as memory:
                self.assertEqual(memory.address, tensor.__array_interface__["data"][0])
                self.assertEqual((memory.length, memory.dtype), (tensor.nbytes, "float32"))
                self.assertNotEqual(memory.remote_key, 0)
                group.all_reduce(memory)
                group.all_reduce(memory)
            self.assertTrue((tensor == 4).all())
            counters = group.counters()
            self.assertEqual(counters["registrations"], 1)
            self.assertLess(counters["bytes_copied"], 200)
            self.assertGreaterEqual(counters["bytes_sent"], tensor.nbytes)
            with self.assertRaisesRegex(verbena_ml.InvalidArgument, "closed"):
                group.all_reduce(memory)
        on_ranks(2, reduce)

    def test_no_memory_is_closed_under_an_operation(self):
        began, tried = threading.Event(), threading.Event()

        class Announcing:
            def __init__(self, tensor):
                self.tensor = tensor

            def __dlpack__(self):
                began.set()
                return self.tensor.__dlpack__()

        def reduce(group):
            if group.rank == 1:
                tried.wait(PATIENCE)
                group.all_reduce(numpy.ones(1000, numpy.float32))
                return
            tensor, out = numpy.ones(1000, numpy.float32), numpy.zeros(1000, numpy.float32)
            memory = group.register(out)
            failures = []

            def close():
                began.wait(PATIENCE)
                try:
                    memory.close()
                except verbena_ml.Error as failure:
                    failures.append(failure.code)
                tried.set()
            closing = threading.Thread(target=close)
            closing.start()
            group.all_reduce(Announcing(tensor), memory)
            closing.join()
            self.assertEqual(failures, ["FAILED_PRECONDITION"])
            self.assertTrue((out == 2).all())
            memory.close()
        on_ranks(2, reduce)

    def test_the_tensor_is_held_and_let_go_of(self):
        def reduce(group):
            tensor = bytearray(8)
            with group.register(tensor):
                with self.assertRaises(BufferError):
                    tensor.append(1)
            tensor.append(1)
            kept = numpy.zeros(8, numpy.float32)
            before = sys.getrefcount(kept)
            group.all_reduce(kept)
            group.all_reduce(kept.__dlpack__())
            gc.collect()
            self.assertEqual(sys.getrefcount(kept), before)
        on_ranks(1, reduce)

    def test_refusals(self):
        def refuse(group):
            tensor = numpy.zeros((4, 4), numpy.float32)
            read_only = tensor.copy()
            read_only.flags.writeable = False
            for wrong, why in ((tensor.T, "not contiguous"), (tensor[:, :2], "not contiguous"),
                               (tensor[:, :2].__dlpack__(), "not contiguous"),
                               (read_only, "read-only"), (b"12345678", "read-only"),
                               (numpy.zeros(3, numpy.complex64), "format"),
                               (numpy.zeros(3, ">f4"), "format"),
                               (tensor.astype(numpy.uint16).__dlpack__(), "DLPack type"),
                               ("text", "buffer protocol"), (7, "buffer protocol")):
                with self.assertRaisesRegex(verbena_ml.InvalidArgument, why) as caught:
                    group.all_reduce(wrong)
                self.assertEqual(caught.exception.code, "INVALID_ARGUMENT")
                self.assertIsInstance(caught.exception, ValueError)
            out = numpy.zeros((4, 4), numpy.float32)
            group.all_reduce(read_only, out)  # only read
            with self.assertRaisesRegex(verbena_ml.InvalidArgument, "float32 go into"):
                group.all_reduce(read_only, out.astype(numpy.int32))
            with self.assertRaisesRegex(verbena_ml.InvalidArgument, "two lengths"):
                group.all_reduce(read_only, out[:2])
        on_ranks(1, refuse)

    def test_a_rank_that_is_missing(self):
        given_up = threading.Event()

        def alone(group):
            if group.rank == 1:
                given_up.wait(PATIENCE)
                return
            with self.assertRaises(verbena_ml.DeadlineExceeded) as caught:
                group.barrier()
            given_up.set()
            self.assertEqual(caught.exception.code, "DEADLINE_EXCEEDED")
            self.assertIsInstance(caught.exception, TimeoutError)
        on_ranks(2, alone, deadline=1.0)
        with self.assertRaises(verbena_ml.Error) as caught:
            verbena_ml.Group(0, 2, "folder:/no/such/folder")
        self.assertEqual(caught.exception.code, "NOT_FOUND")
        with self.assertRaises(verbena_ml.InvalidArgument):
            verbena_ml.Group(0, 1, "nonsense")

    def test_after_leaving(self):
        def leave(group):
            group.leave()
            with self.assertRaises(verbena_ml.Error) as caught:
                group.barrier()
            self.assertEqual(caught.exception.code, "FAILED_PRECONDITION")
        on_ranks(1, leave)


class AsyncTest(unittest.TestCase):
    def test_awaits_in_order_while_the_loop_goes_on(self):
        def reduce(group):
            async def main():
                loop, turns = asyncio.get_running_loop(), [0]

                def turn():
                    turns[0] += 1
                    if turns[0] > 0:
                        loop.call_soon(turn)
                turn()
                small = numpy.full(3, 1.0, numpy.float32)
                large = numpy.full(3_000_000, 2.0, numpy.float32)
                blocks = numpy.zeros(4, numpy.float32)
                threads = threading.active_count()
                got = await asyncio.gather(
                    group.all_reduce_async(small), group.all_reduce_async(large),
                    group.all_gather_async(large[:2], blocks), group.all_reduce_async(small))
                self.assertEqual(threading.active_count(), threads)
                self.assertIs(got[1], large)
                self.assertTrue((small == 4).all() and (large == 4).all() and (blocks == 4).all())
                self.assertGreater(turns[0], 1)
                turns[0] = -1_000_000_000
            asyncio.run(main())
        on_ranks(2, reduce)

    def test_no_memory_is_closed_under_a_future(self):
        tried = threading.Event()

        def reduce(group):
            tensor = numpy.ones(1000, numpy.float32)
            if group.rank == 1:
                tried.wait(PATIENCE)
                group.all_reduce(tensor)
                return

            async def main():
                memory = group.register(tensor)
                future = group.all_reduce_async(memory)
                with self.assertRaisesRegex(verbena_ml.Error, "in use"):
                    memory.close()
                tried.set()
                await future
                memory.close()
            asyncio.run(main())
            self.assertTrue((tensor == 2).all())
        on_ranks(2, reduce)

    def test_errors_and_deadlines_are_exceptions_of_the_future(self):
        given_up = threading.Event()

        def alone(group):
            if group.rank == 1:
                given_up.wait(PATIENCE)
                return

            async def main():
                with self.assertRaises(verbena_ml.InvalidArgument):
                    await group.all_reduce_async(numpy.zeros(2, numpy.float32),
                                                 numpy.zeros(3, numpy.float32))
                with self.assertRaises(verbena_ml.DeadlineExceeded):
                    await group.all_reduce_async(numpy.zeros(2, numpy.float32))
                given_up.set()
            asyncio.run(main())
        on_ranks(2, alone, deadline=1.0)


class StoreTest(unittest.TestCase):
    def test_put_get_accumulate_list(self):
        with verbena_ml.TensorServer() as server, \
                verbena_ml.TensorStore(f"127.0.0.1:{server.port}") as store:
            weights = numpy.arange(12, dtype=numpy.float16).reshape(3, 4)
            info = store.put("w", weights)
            self.assertEqual((info.name, info.dtype, info.shape), ("w", "float16", (3, 4)))
            store.accumulate("w", weights.__dlpack__())
            into = numpy.zeros((3, 4), numpy.float16)
            self.assertGreater(store.get("w", into).version, info.version)
            self.assertTrue((into == 2 * weights).all())
            store.put("halves", numpy.zeros(5, numpy.uint16), dtype="bfloat16")
            self.assertEqual([each.name for each in store.list()], ["halves", "w"])
            self.assertEqual(store.describe("halves").dtype, "bfloat16")
            with self.assertRaises(verbena_ml.Error) as caught:
                store.put("w", weights, only_version=1_000_000)
            self.assertEqual(caught.exception.code, "ABORTED")
            store.delete("w")
            with self.assertRaises(verbena_ml.Error) as caught:
                store.get("w", into)
            self.assertEqual(caught.exception.code, "NOT_FOUND")
            into.flags.writeable = False
            with self.assertRaisesRegex(verbena_ml.InvalidArgument, "read-only"):
                store.get("halves", into)

    def test_nobody_there(self):
        store = verbena_ml.TensorStore("127.0.0.1:1", deadline=2)
        with self.assertRaises(verbena_ml.Unavailable) as caught:
            store.list()
        self.assertIsInstance(caught.exception, ConnectionError)


class StubsTest(unittest.TestCase):
    """verbena_ml.pyi against the module: names, and the parameters that pybind11 writes down."""

    def setUp(self):
        with open(os.path.join(HERE, "verbena_ml.pyi"), encoding="utf-8") as file:
            tree = ast.parse(file.read())
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}

    def test_names(self):
        there = {name for name in dir(verbena_ml) if not name.startswith("_")}
        self.assertEqual(there, set(self.classes))
        for name, node in self.classes.items():
            cls = getattr(verbena_ml, name)
            if issubclass(cls, Exception):
                self.assertEqual([b.id for b in node.bases],
                                 [b.__name__ for b in cls.__bases__])
                continue
            stub = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            real = {each for each in vars(cls) if not each.startswith("_")} | (
                {"__enter__", "__exit__"} & set(vars(cls))) | (
                {"__init__"} if "__init__" in vars(cls) and "__init__" in stub else set())
            self.assertEqual(stub, real, name)

    def test_parameters(self):
        checked = 0
        for name, node in self.classes.items():
            for each in node.body:
                real = getattr(getattr(verbena_ml, name), getattr(each, "name", ""), None)
                if not callable(real) or each.name in ("__enter__", "__exit__") or \
                        not (real.__doc__ or "").startswith(each.name + "("):
                    continue
                signature = re.match(r"\w+\((.*)\) ->", real.__doc__.splitlines()[0]).group(1)
                got = [(part.split(":")[0].strip(), "=" in part)
                       for part in signature.split(",") if part.strip() != "*"]
                args = each.args
                plain = len(args.args) - len(args.defaults)
                want = [(arg.arg, i >= plain) for i, arg in enumerate(args.args)]
                want += [(arg.arg, default is not None)
                         for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
                self.assertEqual([g for g in got if g[0] != ""], want, each.name)
                checked += 1
        self.assertGreater(checked, 20)


class ExamplesTest(unittest.TestCase):
    ENVIRONMENT = dict(os.environ, PYTHONPATH=HERE)

    def run_example(self, *command):
        done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True,
                              stderr=subprocess.PIPE, check=False, timeout=PATIENCE,
                              env=self.ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_all_reduce(self):
        said = self.run_example(LAUNCH, "-n", "3", "--", sys.executable,
                                os.path.join(HERE, "all_reduce.py"))
        for rank in range(3):
            self.assertRegex(said, rf"rank {rank} of 3 has 6\.0, \d\d? bytes copied")

    def test_tensor_store(self):
        with verbena_ml.TensorServer() as server:
            said = self.run_example(os.path.join(HERE, "tensor_store.py"),
                                    f"127.0.0.1:{server.port}")
        self.assertIn("layer1/weights float32 (3, 4) version 2: 24.0", said)


if __name__ == "__main__":
    unittest.main()
