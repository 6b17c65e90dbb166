package dev.edgecv.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.media.ExifInterface
import android.net.Uri
import dev.edgecv.core.Photo
import java.io.IOException
import java.io.InputStream

/** Decodes photos that the user chose. */
object Gallery {
    /** Decodes a photo upright; above [Photo.MAX_PIXELS] at a half or a quarter of its size. Throws InputError. */
    fun decode(context: Context, uri: Uri): Photo {
        fun <T> read(use: (InputStream) -> T): T =
            (context.contentResolver.openInputStream(uri) ?: throw IOException("it cannot be opened")).use(use)
        return readingFile(context, R.string.photo_failed) {
            val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
            read { BitmapFactory.decodeStream(it, null, bounds) }
            if (bounds.outWidth < 1 || bounds.outHeight < 1) throw IOException("it is not an image that Android can decode")
            val options = BitmapFactory.Options().apply {
                inSampleSize = Photo.reduction(bounds.outWidth, bounds.outHeight)
                inPreferredConfig = Bitmap.Config.ARGB_8888
            }
            val bitmap = read { BitmapFactory.decodeStream(it, null, options) } ?: throw IOException("it is broken")
            val orientation = try {
                read { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1) }
            } catch (_: Exception) {
                1 // use the photo although its EXIF data is invalid
            }
            photo(bitmap).upright(orientation)
        }
    }

    fun photo(bitmap: Bitmap): Photo = try {
        Photo.ofArgb(bitmap.width, bitmap.height) { y, pixels -> bitmap.getPixels(pixels, 0, bitmap.width, 0, y, bitmap.width, 1) }
    } finally {
        bitmap.recycle()
    }

    /** The photo as a bitmap of about [side] pixels, for the screen. */
    fun bitmap(photo: Photo, side: Int): Bitmap {
        val step = maxOf(1, maxOf(photo.width, photo.height) / side)
        val width = photo.width / step
        val height = photo.height / step
        val pixels = IntArray(width * height) { i ->
            val from = 3 * (i / width * step * photo.width + i % width * step)
            fun channel(c: Int) = photo.rgb[from + c].toInt() and 255
            0xff shl 24 or (channel(0) shl 16) or (channel(1) shl 8) or channel(2)
        }
        return Bitmap.createBitmap(pixels, width, height, Bitmap.Config.ARGB_8888)
    }
}
