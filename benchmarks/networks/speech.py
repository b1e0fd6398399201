"""Spoken words for the audio networks, said by eSpeak NG in many voices, speeds and pitches; and noise.

The voices of the test words are never heard in training.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import wave
from functools import cache
from pathlib import Path

import numpy as np
from kept import kept_arrays
from scipy.fft import dct
from scipy.signal import resample_poly

RATE = 16000
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
OTHERS = ("bed", "bird", "cat", "dog", "happy", "house", "marvin", "sheila", "tree", "wow", "three", "seven")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
VOICES = {
    "train": "m1 m2 m3 m4 m5 m6 f1 f2 f3 adam anika edward linda belinda".split(),
    "test": "m7 m8 f4 f5 michael".split(),
}
TAKES = {"train": 2, "test": 1}


@cache
def words(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Clean words of one second, each in the middle.

    Args:
        part: "train" or "test".

    Returns:
        Sound of shape (words, RATE), -1..1, and the word's number: 0..9 KEYWORDS, 10 any other word.
    """
    found = kept_arrays(_speak_all, [__file__])
    return found[f"{part}_sound"].astype(np.float32) / 32768, found[f"{part}_word"]


def _speak_all() -> dict[str, np.ndarray]:
    if shutil.which("espeak-ng") is None:
        raise FileNotFoundError("espeak-ng is missing; apt-get install espeak-ng")
    arrays = {}
    for seed, (part, voices) in enumerate(VOICES.items()):
        random = np.random.default_rng(seed)
        sounds, numbers = [], []
        for accent in ACCENTS:
            for voice in voices:
                others = random.choice(OTHERS, size=1)
                for word in [*KEYWORDS, *others] * TAKES[part]:
                    speed, pitch = (int(random.integers(*span)) for span in ((120, 211), (25, 76)))
                    sounds.append(_speak(str(word), f"{accent}+{voice}", speed, pitch))
                    numbers.append(KEYWORDS.index(word) if word in KEYWORDS else len(KEYWORDS))
        arrays[f"{part}_sound"] = (np.stack(sounds) * 32767).astype(np.int16)
        arrays[f"{part}_word"] = np.array(numbers)
    return arrays


def _speak(word: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """One second with the word in its middle, its loudest sample at 0.5."""
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "word.wav"
        command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(path), word]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        with wave.open(str(path)) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
            rate = file.getframerate()
    loud = np.flatnonzero(np.abs(sound) > 0.01 * np.abs(sound).max())
    sound = resample_poly(sound[loud[0] : loud[-1] + 1], RATE // 50, rate // 50)[:RATE]
    spare = RATE - len(sound)
    return np.pad(sound / np.abs(sound).max() / 2, (spare // 2, spare - spare // 2)).astype(np.float32)


def noise(random: np.random.Generator, length: int) -> np.ndarray:
    """White to brown noise, with a hum below some of it; energy 1 a sample."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 20.0)
    sound = np.fft.irfft(spectrum * frequency ** -random.uniform(0.0, 1.0), length)
    sound /= sound.std()
    if random.random() < 0.3:
        sound += np.sin(2 * np.pi * random.choice([50.0, 60.0, 120.0]) * np.arange(length) / RATE)
    return (sound / sound.std()).astype(np.float32)


def log_mel(sound: np.ndarray, *, window: int, hop: int, bands: int) -> np.ndarray:
    """The logarithm of the energy in mel bands from 60 to 7600 Hz.

    Args:
        sound: of shape (samples,).
        window: samples in a frame, weighted by a Hann window.
        hop: samples from frame to frame.
        bands: triangular filters, equally spaced on the mel scale (O'Shaughnessy's formula).

    Returns:
        Shape (frames, bands).
    """
    frames = np.lib.stride_tricks.sliding_window_view(sound, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1)) ** 2
    return np.log(power @ _filters(window, bands) + 1e-3).astype(np.float32)


def mfcc(sound: np.ndarray, *, window: int, hop: int, bands: int, kept: int) -> np.ndarray:
    """The first `kept` mel-frequency cepstral coefficients, of shape (frames, kept)."""
    logs = log_mel(sound, window=window, hop=hop, bands=bands)
    return dct(logs, axis=1, norm="ortho")[:, :kept].astype(np.float32)


@cache
def _filters(window: int, bands: int) -> np.ndarray:
    """Triangles over the frequencies of a real transform, shape (window // 2 + 1, bands)."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (60.0, 7600.0))
    edges = 700 * (10 ** (np.linspace(low, high, bands + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(window, 1 / RATE)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
