package dev.edgecv.core

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

class PhotoTest {
    @Test
    fun `transparent pixels are blended with white`() {
        val pixels = intArrayOf(0xff102030.toInt(), 0x00102030, 0x80000000.toInt())
        val photo = Photo.ofArgb(3, 1) { _, row -> pixels.copyInto(row) }
        assertEquals(listOf(0x10, 0x20, 0x30, 255, 255, 255, 127, 127, 127), photo.rgb.map { it.toInt() and 255 })
    }

    @Test
    fun `only photos above 16 megapixels are decoded at a reduced size`() {
        assertEquals(1, Photo.reduction(4000, 4000))
        assertEquals(2, Photo.reduction(4001, 4000))
        assertEquals(4, Photo.reduction(16320, 12240))
        assertEquals(1, Photo.reduction(1, 16_000_000))
    }

    @Test
    fun `a photo without pixels is rejected`() {
        assertThrows(InputError::class.java) { Photo(0, 5, ByteArray(0)) }
    }
}
