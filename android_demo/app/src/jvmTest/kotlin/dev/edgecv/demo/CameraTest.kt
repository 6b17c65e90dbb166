package dev.edgecv.demo

import android.Manifest
import android.graphics.Matrix
import android.view.Surface
import android.view.TextureView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

/** Camera2 on the framework's real code, with a camera that delivers no frames. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], qualifiers = "w411dp-h891dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class CameraTest : AppTest() {
    private val failures = mutableListOf<String>()

    private fun camera() = Camera(app, onFrame = { _, _ -> }, onFailure = { synchronized(failures) { failures += it } })

    private fun Matrix.values() = FloatArray(9).also { getValues(it) }

    @Test
    fun `a camera opens, shows an undistorted preview, and stops`() {
        addCamera()
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        val camera = camera()
        repeat(3) {
            camera.start(surface(), 480, 1080)
            val matrix = camera.previewTransform(1080, 1440) // the preview of 1440 x 1080, mounted at 90 degrees, fits exactly
            assertEquals(listOf(1f, 1f), listOf(matrix.values()[Matrix.MSCALE_X], matrix.values()[Matrix.MSCALE_Y]))
            Thread.sleep(50)
            camera.stop()
            assertTrue(camera.previewTransform(1080, 1440).isIdentity)
        }
        assertEquals(emptyList<String>(), failures)
    }

    @Test
    fun `a camera that is gone is a message`() {
        addCamera()
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        val camera = camera()
        camera.start(surface(), 480, 1080)
        shadowOf(cameras).removeCamera("0")
        camera.displayDegrees = 90
        camera.previewTransform(1080, 1440)
        camera.start(surface(), 480, 1080)
        assertEquals(1, failures.size)
        assertTrue(camera.previewTransform(1080, 1440).isIdentity)
    }

    @Test
    fun `the preview is upright after a half turn, which does not restart the activity`() {
        addCamera()
        shadowOf(app).grantPermissions(Manifest.permission.CAMERA)
        val activity = start().get()
        val texture = activity.view<TextureView>(R.id.preview)
        if (texture.surfaceTexture == null) texture.setSurfaceTexture(surface())
        activity.click(R.id.camera_button)
        idle()
        fun upright() = texture.getTransform(null).values()[Matrix.MSCALE_X] > 0
        assertTrue(upright())
        @Suppress("DEPRECATION") // the app uses it on older systems too
        shadowOf(activity.windowManager.defaultDisplay).setRotation(Surface.ROTATION_180)
        until("the preview is turned", activity) { !upright() }
    }
}
