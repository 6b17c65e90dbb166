package dev.edgecv.demo

import android.media.Image
import dev.edgecv.core.CameraFrame
import dev.edgecv.core.Plane

/** Copies of camera images in buffers that are reused, so that the image itself returns to the camera at once. */
class Frames {
    private val planes = arrayOfNulls<ByteArray>(PLANES)

    /** A copy of the image; the next call overwrites it. [degrees] is the rotation that makes it upright. */
    fun copy(image: Image, degrees: Int): CameraFrame {
        val (y, u, v) = image.planes.mapIndexed { at, plane ->
            val count = plane.buffer.remaining()
            val bytes = planes[at]?.takeIf { it.size >= count } ?: ByteArray(count).also { planes[at] = it }
            plane.buffer.get(bytes, 0, count)
            Plane(bytes, plane.rowStride, plane.pixelStride)
        }
        return CameraFrame(image.width, image.height, y, u, v, degrees)
    }

    private companion object {
        const val PLANES = 3
    }
}
