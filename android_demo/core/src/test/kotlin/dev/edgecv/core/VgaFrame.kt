package dev.edgecv.core

/** A camera frame of 640 x 480 pixels of noise. */
object VgaFrame {
    private val planes = listOf(640 * 480 to 640, 320 * 240 to 320, 320 * 240 to 320)
        .mapIndexed { seed, (count, stride) -> Plane(Golden.noise(count, seed + 1), stride, 1) }

    fun of(degrees: Int) = CameraFrame(640, 480, planes[0], planes[1], planes[2], degrees)

    /** The input of 224 x 224 pixels, by a conversion and rotation of the whole frame, a crop and a resize. */
    fun byWholeSteps(degrees: Int): Photo {
        val photo = Reference.photo(640, 480, planes[0], planes[1], planes[2], degrees)
        val square = Reference.crop(photo, (photo.width - 480 + 1) / 2, (photo.height - 480 + 1) / 2, 480, 480)
        return Reference.resize(square, 224, 224, Interpolation.BICUBIC)
    }
}
