"""Memory kept between calls: used again when nobody has it, and only then."""

import ctypes
import mmap
import threading
from types import SimpleNamespace

import pytest
import torch

from sdas_kernels import memory, native

SIZE = memory.LARGE // 4 * 3  # of float32


@pytest.fixture(autouse=True)
def _kept():
    memory.release()
    yield
    memory.keep(1 << 29)


def made(size=SIZE):
    return memory.empty((size,), torch.zeros(1))


def test_shape_dtype_strides():
    found = memory.empty((3, SIZE // 3), torch.zeros(2, dtype=torch.float64))
    assert found.shape == (3, SIZE // 3)
    assert found.dtype == torch.float64
    assert found.is_contiguous()
    assert memory.empty_like(torch.zeros(SIZE, 2).T).is_contiguous()
    assert memory.empty((0, 3), torch.zeros(1)).shape == (0, 3)


def test_used_again():
    place = made().data_ptr()
    assert made().data_ptr() == place


@pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
def test_pages_that_the_system_has_given():
    size = 1 << 23
    with mmap.mmap(-1, size) as pages:
        place = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        assert not native.extension().has_pages(place, size)
        for k in range(0, size, mmap.PAGESIZE):
            pages[k] = 1
        assert native.extension().has_pages(place, size)


@pytest.mark.parametrize("has_pages", [True, False])
def test_arrays_of_medium_size_are_kept_where_the_c_library_has_no_pages_for_them(monkeypatch, has_pages):
    monkeypatch.setattr(native, "extension", lambda: SimpleNamespace(has_pages=lambda *_: has_pages))
    monkeypatch.setattr(native, "available", lambda: (True, ""))
    tensor = made(memory.SMALLEST // 4)
    assert (memory._kept.storages == []) == has_pages
    place = tensor.data_ptr()
    del tensor
    if not has_pages:
        assert made(memory.SMALLEST // 4).data_ptr() == place


def test_arrays_of_medium_size_without_the_extension(monkeypatch):
    monkeypatch.setattr(native, "_extension", None)
    assert made(memory.SMALLEST // 4).shape == (memory.SMALLEST // 4,)


def test_sizes_that_are_close_share_a_place():
    place = made(SIZE - 100).data_ptr()
    assert made(SIZE - 1).data_ptr() == place


@pytest.mark.parametrize(
    "hold",
    [
        lambda t: t[5:7],
        lambda t: t.view(torch.int32),
        lambda t: t.detach(),
        lambda t: t.numpy(),
        lambda t: torch.from_dlpack(t),
        lambda t: t.untyped_storage(),
        lambda t: (t.fill_(2).requires_grad_() ** 2).sum(),  # saved for the backward pass
    ],
)
def test_not_used_again_while_held(hold):
    tensor = made().fill_(1)
    held, place = hold(tensor), tensor.data_ptr()
    del tensor
    assert made().data_ptr() != place
    del held


def test_not_used_again_after_sharing_with_other_processes():
    made().share_memory_()
    assert not made().is_shared()


def test_resized_storage_is_not_taken():
    made().untyped_storage().resize_(16)
    made().fill_(1)


def test_small_tensors_and_none_kept():
    assert memory.empty((4,), torch.zeros(1)).untyped_storage().nbytes() == 16
    memory.keep(0)
    assert made().untyped_storage().nbytes() == 4 * SIZE
    with pytest.raises(ValueError, match="size must be at least 0, got -1"):
        memory.keep(-1)


def test_bound():
    """Of four that are held, the three used last fit within the bound and are used again."""
    memory.keep(3 * made().untyped_storage().nbytes())
    held = [made() for _ in range(4)]
    places = [t.data_ptr() for t in held]
    held.clear()
    again = [made() for _ in range(3)]
    assert {t.data_ptr() for t in again} == set(places[1:])


def test_threads_keep_apart():
    place, others = made().data_ptr(), []
    thread = threading.Thread(target=lambda: others.append(made().fill_(1)))
    thread.start()
    thread.join()
    assert others[0].data_ptr() != place


def test_scratch():
    room = memory.scratch(100)
    assert room.dtype == torch.uint8
    assert len(room) >= 100
    assert memory.scratch(50).data_ptr() == room.data_ptr()
    assert len(memory.scratch(2000)) >= 2000


@pytest.fixture
def lend_pages(monkeypatch):
    """What `native.lend_pages` was asked, and what it is to answer."""
    asked, answers = [], [True]
    extension = SimpleNamespace(lend_pages=lambda *arguments: asked.append(arguments) or answers[-1])
    monkeypatch.setattr(native, "extension", lambda: extension)
    return asked, answers


def test_large_scratch_is_lent_when_it_ends(lend_pages):
    asked, _ = lend_pages
    memory.keep(1000)
    memory.scratch(1000)
    memory.end_scratch()
    assert not asked
    place = memory.scratch(1004).data_ptr()
    memory.end_scratch()
    assert asked == [(place, 1004)]
    assert memory.scratch(1004).data_ptr() == place


def test_large_scratch_is_given_back_where_it_cannot_be_lent(lend_pages):
    asked, answers = lend_pages
    answers.append(False)
    memory.keep(1000)
    memory.scratch(1004)
    memory.end_scratch()
    memory.end_scratch()
    assert len(asked) == 1


@pytest.mark.skipif(not native.available()[0], reason=native.available()[1])
def test_lent_pages_are_written_as_others():
    tensor = torch.zeros(1 << 22)
    for value in range(3):
        tensor.fill_(value)
        assert float(tensor.double().mean()) == value
        native.extension().lend_pages(tensor.data_ptr(), tensor.nbytes)
