"""What may pass is told from what cannot: a share that is gone from one bad file."""

import errno

import pytest

from tasks.core.errors import RequestError, StoreError, Unreachable, check_place, check_reachable, may_pass


def os_error(number: int) -> OSError:
    return OSError(number, "what the system says")


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN])
def test_a_share_that_does_not_answer_may_pass(number):
    assert may_pass(os_error(number))


@pytest.mark.parametrize(
    "error",
    [
        os_error(errno.EACCES),
        os_error(errno.ENOSPC),
        RequestError("a bad study"),
        StoreError("a full disk"),
        ValueError(),
    ],
)
def test_what_cannot_pass_is_not_tried_again(error):
    assert not may_pass(error)


def test_one_file_that_cannot_be_read_is_that_files_fault(tmp_path):
    (tmp_path / "a.png").touch()
    for number in (errno.EACCES, errno.EIO, errno.ENOENT):
        check_reachable(tmp_path / "a.png", os_error(number))


def test_the_last_file_of_a_folder_may_go_away(tmp_path):
    check_reachable(tmp_path / "a.png", os_error(errno.ENOENT))


def test_a_file_whose_folder_is_gone_is_out_of_reach(tmp_path):
    with pytest.raises(Unreachable, match="cannot be reached"):
        check_reachable(tmp_path / "gone" / "a.png", os_error(errno.ENOENT))


def test_a_file_on_a_share_that_does_not_answer_is_out_of_reach_whatever_its_folder_says(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(Unreachable, match=r"what the system says, a\.png"):
        check_reachable(tmp_path / "a.png", os_error(errno.ESTALE))


def test_a_data_folder_must_hold_something(tmp_path):
    for folder in (tmp_path, tmp_path / "gone"):
        with pytest.raises(Unreachable, match="share mounted"):
            check_place(folder)
    (tmp_path / "a.png").touch()
    check_place(tmp_path)
