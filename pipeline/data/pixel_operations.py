"""Operations on the colours and the shape of images, each with a strength of its own for every image. By kornia."""

# B batch, C channels, H W height and width

import torch
import torch.nn.functional as F
from torch import Tensor

from edgestill.pipeline.errors import MissingDependencyError


def require_kornia() -> None:
    """Refuse to go on without kornia.

    Raises:
        MissingDependencyError: it is not installed; the message says how to get it.
    """
    try:
        import kornia.enhance  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "data.augment.policy and its contrast, saturation and hue need the library kornia: "
            f"pip install 'edgestill[kornia]', or leave them out ({error})"
        ) from None


def multiplied(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply pixels by factors [B]."""
    return (images * factor[:, None, None, None]).clamp(0, 1)


def times_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from their image's mean grey by factors [B], or towards it."""
    import kornia.enhance as enhance

    found: Tensor = enhance.adjust_contrast_with_mean_subtraction(images, factor)
    return found


def times_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from their own grey by factors [B], or towards it; images without colour stay."""
    import kornia.enhance as enhance

    if images.shape[1] != 3:
        return images
    found: Tensor = enhance.adjust_saturation_with_gray_subtraction(images, factor)
    return found


def turned_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue by [B] turns of the colour circle; images without colour stay."""
    import kornia.enhance as enhance

    if images.shape[1] != 3:
        return images
    found: Tensor = enhance.adjust_hue(images, turns * (2 * torch.pi)).clamp(0, 1)
    return found


def sharpened(images: Tensor, factor: Tensor) -> Tensor:
    """Sharpen by factors [B] above 1 or blur by those below; images of one or two pixels' width stay."""
    import kornia.enhance as enhance

    if min(images.shape[2:]) < 3:
        return images
    found: Tensor = enhance.sharpness(images, factor)
    return found


def posterized(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the highest [B] of eight bits."""
    import kornia.enhance as enhance

    found: Tensor = enhance.posterize(images, bits.long())
    return found


def solarized(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert pixels at or above thresholds [B]."""
    return torch.where(images >= threshold[:, None, None, None], 1 - images, images)


def equalized(images: Tensor) -> Tensor:
    """Give each channel an even histogram."""
    import kornia.enhance as enhance

    found: Tensor = enhance.equalize(images)
    return found


def stretched_contrast(images: Tensor) -> Tensor:
    """Stretch each channel to the range from 0 to 1; a constant one stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def warped(images: Tensor, inverse: Tensor) -> Tensor:
    """Read each pixel from elsewhere, bilinearly; black comes in from outside.

    Args:
        inverse: [B, 2, 3], from a new place to the old one, in pixels from the image's centre.
    """
    height, width = images.shape[2:]
    to_pixels = torch.tensor([width / 2, height / 2, 1.0], device=images.device)
    theta = inverse * to_pixels / to_pixels[:2, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.contiguous(), grid, align_corners=False)
