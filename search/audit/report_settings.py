"""How much of an audit its report shows."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.errors import UsageError

__all__ = ["ReportSettings"]


@dataclass(frozen=True)
class ReportSettings:
    """Limits of the report; the report says what they left out, and where that is.

    Attributes:
        sources: training images shown for one generated image; equal ones count once.
        owners: records shown of one training image that stands in the collection several times.
        shares: values shown of a field (creators, licences ...), the largest ones.
        rejects: rejected images that are named.
        text: characters of a caption, a prompt or a name.
        side: longest side of a small picture, in pixels.
        flagged_side: the same where generated and training image stand side by side.
        quality: of the small pictures (WebP), 1 to 100.
        generated_pictures: small pictures of generated images; flagged ones come first.
        training_pictures: small pictures of training images; those beside a flagged image come
            first, then those with the most influence over the gallery.
        flagged_pictures: pictures of either kind that may be as large as `flagged_side`.
        generated_bytes: size of all small pictures of generated images, as WebP; a third more in
            the report.
        training_bytes: the same of training images.
    """

    sources: int = 12
    owners: int = 4
    shares: int = 200
    rejects: int = 200
    text: int = 2000
    side: int = 96
    flagged_side: int = 192
    quality: int = 70
    generated_pictures: int = 20_000
    training_pictures: int = 20_000
    flagged_pictures: int = 600
    generated_bytes: int = 22_000_000
    training_bytes: int = 14_000_000

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            UsageError: a limit that is no limit.
        """
        for name in ("sources", "owners", "shares", "side", "flagged_side"):
            if getattr(self, name) < 1:
                raise UsageError(
                    f"{name} of a report must be at least 1, not {getattr(self, name)}"
                )
        if self.text < 16:
            raise UsageError(f"text of a report must be at least 16 characters, not {self.text}")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality of a report's pictures is 1 to 100, not {self.quality}")
