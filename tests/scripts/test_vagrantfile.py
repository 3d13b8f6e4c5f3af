"""The Vagrantfile, evaluated by Ruby against a recorder that stands in for Vagrant."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent

# Answers every call, remembers the settings, and hands itself to every block.
RECORDER = """
require "json"
class Recorder
  attr_reader :calls
  def initialize; @calls = []; end
  def respond_to_missing?(*) = true
  def method_missing(name, *arguments, **options, &block)
    @calls << [name, arguments, options] unless arguments.empty? && options.empty?
    block&.call(self)
    self
  end
end
module Vagrant
  def self.configure(version)
    recorder = Recorder.new
    yield recorder
    puts JSON.generate(recorder.calls)
  end
end
load ARGV[0]
"""


Calls = list[tuple[str, list[str], dict[str, object]]]  # name, arguments, options


@pytest.fixture
def calls() -> Calls:
    ruby = shutil.which("ruby")
    if ruby is None:
        pytest.skip("no ruby to evaluate the Vagrantfile with; scripts/provision.sh --tests installs it")
    command = [ruby, "-e", RECORDER, str(CHECKOUT / "Vagrantfile")]
    calls: Calls = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return calls


def test_there_is_a_machine_for_each_tested_release(calls: Calls) -> None:
    assert [arguments[0] for name, arguments, _ in calls if name == "define"] == ["bookworm", "jammy", "noble"]


def test_one_machine_alone_starts_by_default(calls: Calls) -> None:
    assert [options["autostart"] for name, _, options in calls if name == "define"] == [True, False, False]


def test_every_machine_is_provisioned_by_the_script_that_ci_runs(
    calls: Calls,
) -> None:
    inline = [options["inline"] for name, _, options in calls if name == "provision"]
    assert inline == ["/vagrant/scripts/provision.sh --tests"] * 3
    assert (CHECKOUT / "scripts/provision.sh").stat().st_mode & 0o111
    assert "scripts/provision.sh --tests" in (CHECKOUT / ".ci/run").read_text()
